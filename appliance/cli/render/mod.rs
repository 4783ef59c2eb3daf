//! Answers as text for people.

mod lists;
mod status;
mod store;
mod table;
mod text;
mod time;

pub(super) use lists::{cluster_status, drop_reasons, flow_list, sa_list, target_list};
#[cfg(test)]
pub(super) use status::LINES_MAX;
pub(super) use status::status;
pub(super) use store::store_list;
pub(super) use text::{clean, clean_lines, counted};
pub(super) use time::duration;

/// Columns of the terminal that everything fits unless asked otherwise.
pub(super) const TERMINAL_COLUMNS: usize = 80;

/// How wide tables may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// [`TERMINAL_COLUMNS`]: the important columns, long values cut.
    Terminal,
    /// Every column, nothing cut.
    Any,
}
