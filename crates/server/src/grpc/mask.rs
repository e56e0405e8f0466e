//! Update masks (AIP-134).

use prost_types::FieldMask;
use tokenward_broker::Error;

/// Which fields an update changes.
pub(crate) enum Mask {
    /// Those that are set in the request.
    Set,
    /// All that can be changed.
    All,
    /// These.
    Paths(Vec<String>),
}

impl Mask {
    /// Checks the mask of a request against the fields that can be changed.
    pub(crate) fn new(mask: Option<FieldMask>, allowed: &[&str]) -> Result<Self, Error> {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Ok(Self::Set);
        }
        if paths.len() == 1 && paths[0] == "*" {
            return Ok(Self::All);
        }
        if let Some(unknown) = paths.iter().find(|path| !allowed.contains(&path.as_str())) {
            let shown: String = unknown.chars().take(64).collect();
            return Err(Error::invalid(
                "update_mask",
                format_args!("{shown:?} cannot be changed; these can: {}", allowed.join(", ")),
            ));
        }
        Ok(Self::Paths(paths))
    }

    /// `value` where the field is to be changed. `is_set` tells whether it differs from the field's default.
    pub(crate) fn pick<T>(&self, field: &str, value: T, is_set: impl FnOnce(&T) -> bool) -> Option<T> {
        let wanted = match self {
            Self::Set => is_set(&value),
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|path| path == field),
        };
        wanted.then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> Result<Mask, Error> {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        Mask::new(Some(mask), &["display_name", "labels"])
    }

    #[test]
    fn without_a_mask_the_fields_that_are_set_change() {
        for mask in [Mask::new(None, &[]).unwrap(), mask(&[]).unwrap()] {
            assert_eq!(
                mask.pick("display_name", "x".to_owned(), |text| !text.is_empty()),
                Some("x".to_owned())
            );
            assert_eq!(mask.pick("display_name", String::new(), |text| !text.is_empty()), None);
        }
    }

    #[test]
    fn a_mask_changes_its_fields_even_to_nothing_and_no_others() {
        let mask = mask(&["display_name"]).unwrap();
        assert_eq!(mask.pick("display_name", String::new(), |text| !text.is_empty()), Some(String::new()));
        assert_eq!(mask.pick("labels", "x".to_owned(), |text| !text.is_empty()), None);
    }

    #[test]
    fn a_star_changes_every_field() {
        assert_eq!(
            mask(&["*"]).unwrap().pick("labels", String::new(), |text| !text.is_empty()),
            Some(String::new())
        );
    }

    #[test]
    fn an_unknown_path_is_refused_with_those_that_there_are() {
        for paths in [&["tenant_id"][..], &["labels", "labels.tier"], &["*", "labels"]] {
            let error = mask(paths).err().unwrap();
            assert!(error.message.contains("display_name, labels"), "{error}");
        }
    }
}
