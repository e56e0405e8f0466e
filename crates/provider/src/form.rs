use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// The fields of a token request (RFC 6749, appendix B). It has no `Debug`, since it holds secrets.
#[derive(Default)]
pub struct Form<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Form<'a> {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'a str) -> Self {
        self.0.push((name, value));
        self
    }

    /// Adds a field if there is a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<&'a str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The body, wiped when dropped.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for the worst case, so that growing leaves no copy behind.
        let room = self.0.iter().map(|(name, value)| name.len() + 2 + 3 * value.len()).sum();
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        for (name, value) in &self.0 {
            if !body.is_empty() {
                body.push(b'&');
            }
            body.extend_from_slice(name.as_bytes());
            body.push(b'=');
            for piece in byte_serialize(value.as_bytes()) {
                body.extend_from_slice(piece.as_bytes());
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_encoded_in_order() {
        let form = Form::new().with("a", "x y&z=ä").with_some("b", None).with_some("c", Some(""));
        assert_eq!(form.encode().as_slice(), b"a=x+y%26z%3D%C3%A4&c=");
    }

    proptest! {
        #[test]
        fn any_value_reads_back_and_fits_the_room(value in ".{0,60}") {
            let form = Form::new().with("a", &value).with("b", "1");
            let body = form.encode();
            prop_assert!(body.len() <= body.capacity());
            let read: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
            prop_assert_eq!(read, vec![("a".to_owned(), value.clone()), ("b".to_owned(), "1".to_owned())]);
        }
    }
}
