/// Additional authenticated data: a sequence of fields, each preceded by its length as a big-endian `u32`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// An empty sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    ///
    /// # Panics
    /// When the field is 4 GiB or longer: a length that is cut off would let two sequences look alike.
    #[must_use]
    #[expect(clippy::expect_used, reason = "identifiers are short; a field of 4 GiB is a programming error")]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The encoded sequence.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
