//! The only SQLite: one thread, one writer.

mod handle;
#[cfg(test)]
pub(crate) use handle::Ask;

pub use handle::{
    Admitted, BacklogPage, HistoryQuery, HistoryRow, NewCommand, Notice, NoticeBody, OpenCommand, OutboxItem,
    StoreError, StoreHandle, StoredPlan,
};
