/// The most rows on one page; larger requests get this many.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// Which page of a listing is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many rows at the most, 1 to [`MAX_PAGE_SIZE`].
    pub size: u32,
    /// The cursor of the page before; `None` for the first page.
    pub after: Option<String>,
}

impl PageRequest {
    /// The first page, as large as it may be.
    pub fn first() -> Self {
        Self { size: MAX_PAGE_SIZE, after: None }
    }
}

/// One page of a listing in key order. Rows that come or go meanwhile neither repeat nor hide others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` when this is the last.
    pub next: Option<String>,
}
