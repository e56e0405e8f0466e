//! Values as environment variables give them: a text may stand for a number, a switch or a list where one is expected.
//!
//! What is expected decides, never what the text looks like: the password `000123` stays as it is.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor,
};
use serde_json::{Error, Value};

/// A value that bends texts to the type that is asked for.
pub(crate) struct Lenient(pub(crate) Value);

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! from_text {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.as_str().map(str::trim).map(str::parse::<$type>) {
                Some(Ok(value)) => visitor.$visit(value),
                _ => self.0.$method(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                let mut entries =
                    MapDeserializer::new(map.into_iter().map(|(key, value)| (key, Self(value))));
                let value = visitor.visit_map(&mut entries)?;
                entries.end()?;
                Ok(value)
            }
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Self));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    from_text! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i64 i64, deserialize_i16 visit_i64 i64,
        deserialize_i32 visit_i64 i64, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u64 u64, deserialize_u16 visit_u64 u64,
        deserialize_u32 visit_u64 u64, deserialize_u64 visit_u64 u64,
        deserialize_f32 visit_f64 f64, deserialize_f64 visit_f64 f64,
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::String(text) = self.0 else { return self.deserialize_any(visitor) };
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Self(Value::Array(items.map(Value::from).collect())).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) if map.len() == 1 => {
                let (variant, content) = map.into_iter().next().ok_or_else(|| Error::custom("empty"))?;
                visitor.visit_enum(Variant { variant, content: Self(content) })
            }
            other => other.deserialize_enum(name, variants, visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct Variant {
    variant: String,
    content: Lenient,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Lenient;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Lenient), Error> {
        Ok((seed.deserialize(self.variant.into_deserializer())?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Lenient {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        serde::Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Config {
        count: u32,
        on: bool,
        factor: Option<f64>,
        list: Vec<String>,
        text: String,
    }

    #[test]
    fn a_text_stands_for_what_is_expected_and_otherwise_stays_a_text() {
        let given = json!({"count": "10", "on": "true", "factor": "0.5", "list": "a, b", "text": "000123"});
        let expected = Config {
            count: 10,
            on: true,
            factor: Some(0.5),
            list: vec!["a".into(), "b".into()],
            text: "000123".into(),
        };
        assert_eq!(Config::deserialize(Lenient(given)).unwrap(), expected);
        let typed = json!({"count": 10, "on": true, "factor": 0.5, "list": ["a", "b"], "text": "000123"});
        assert_eq!(Config::deserialize(Lenient(typed)).unwrap(), expected);
    }

    #[test]
    fn a_number_does_not_stand_for_a_text() {
        let given = json!({"count": 1, "on": true, "list": [], "text": 123});
        assert!(Config::deserialize(Lenient(given)).is_err());
    }
}
