//! Tables of text: numbers to the right, the rest to the left, cut to the terminal where asked.

use super::text::{clean, columns, fit};
use super::{TERMINAL_COLUMNS, Width};

const GAP: usize = 2;
/// No column is cut below this: less than an SPI says nothing.
const SHRINK_MIN: usize = 8;

/// How a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// To the left; may be cut.
    Text(&'static str),
    /// To the left; never cut.
    Key(&'static str),
    /// To the right; never cut.
    Number(&'static str),
    /// As [`Column::Text`], but only where width does not matter.
    WideText(&'static str),
    /// As [`Column::Number`], but only where width does not matter.
    WideNumber(&'static str),
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Text(title)
            | Self::Key(title)
            | Self::Number(title)
            | Self::WideText(title)
            | Self::WideNumber(title) => title,
        }
    }

    const fn is_wide(self) -> bool {
        matches!(self, Self::WideText(_) | Self::WideNumber(_))
    }

    fn align(self, text: &str, width: usize) -> String {
        match self {
            Self::Number(_) | Self::WideNumber(_) => format!("{text:>width$}"),
            Self::Text(_) | Self::Key(_) | Self::WideText(_) => {
                format!("{:<width$}", fit(text, width))
            }
        }
    }
}

/// A table being filled.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    width: Width,
}

impl Table {
    pub(super) fn new(width: Width, columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), width }
    }

    /// A row has a value for each column, those not shown included.
    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row.iter().map(|value| clean(value)).collect());
    }

    /// The table with its titles, one line per row.
    pub(super) fn render(&self) -> String {
        let shown: Vec<usize> = (0..)
            .zip(&self.columns)
            .filter(|(_, column)| self.width == Width::Any || !column.is_wide())
            .map(|(at, _)| at)
            .collect();
        let widths = self.widths(&shown);
        let titles: Vec<String> = self.columns.iter().map(|c| c.title().to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            text.push_str(self.line(row, &shown, &widths).trim_end());
            text.push('\n');
        }
        text
    }

    fn line(&self, row: &[String], shown: &[usize], widths: &[usize]) -> String {
        let cell = |(at, width): (&usize, &usize)| {
            let column = self.columns.get(*at)?;
            Some(column.align(row.get(*at)?, *width))
        };
        let cells: Vec<String> = shown.iter().zip(widths).filter_map(cell).collect();
        cells.join(&" ".repeat(GAP))
    }

    /// The width of each shown column.
    fn widths(&self, shown: &[usize]) -> Vec<usize> {
        let natural = |at: &usize| {
            let values = self.rows.iter().filter_map(|row| row.get(*at)).map(|v| columns(v));
            let title = self.columns.get(*at).map_or(0, |column| columns(column.title()));
            values.max().unwrap_or(0).max(title)
        };
        let mut widths: Vec<usize> = shown.iter().map(natural).collect();
        if self.width == Width::Terminal {
            let gaps = GAP.saturating_mul(widths.len().saturating_sub(1));
            while widths.iter().sum::<usize>().saturating_add(gaps) > TERMINAL_COLUMNS {
                let Some(widest) = self.widest_text(shown, &mut widths) else { break };
                *widest = widest.saturating_sub(1);
            }
        }
        widths
    }

    /// The widest column that may still be cut.
    fn widest_text<'w>(&self, shown: &[usize], widths: &'w mut [usize]) -> Option<&'w mut usize> {
        let may_shrink = |at: &usize| matches!(self.columns.get(*at), Some(Column::Text(_)));
        shown
            .iter()
            .zip(widths)
            .filter(|(at, width)| may_shrink(at) && **width > SHRINK_MIN)
            .map(|(_, width)| width)
            .max_by_key(|width| **width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::Key("ID"), Column::Text("NAME"), Column::Number("N"), Column::WideText("MORE")];

    fn table(width: Width, name: &str) -> String {
        let mut table = Table::new(width, COLUMNS);
        table.push(["a".into(), name.into(), "7".into(), "yes".into()]);
        table.push(["b".into(), "y".into(), "1234".into(), "no".into()]);
        table.render()
    }

    #[test]
    fn numbers_stand_to_the_right_and_wide_columns_wait_to_be_asked() {
        assert_eq!(table(Width::Terminal, "x"), "ID  NAME     N\na   x        7\nb   y     1234\n");
        assert_eq!(
            table(Width::Any, "x"),
            "ID  NAME     N  MORE\na   x        7  yes\nb   y     1234  no\n"
        );
    }

    #[test]
    fn long_values_are_cut_for_a_terminal_only() {
        let name = "n".repeat(200);
        assert!(table(Width::Terminal, &name).lines().all(|line| line.len() <= TERMINAL_COLUMNS));
        assert!(table(Width::Terminal, &name).contains("nn..."));
        assert!(table(Width::Any, &name).contains(&name));
    }
}
