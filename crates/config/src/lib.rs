//! Typed configuration: file, then environment, then flags; every problem at once
