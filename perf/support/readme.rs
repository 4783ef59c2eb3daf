//! Files that figures are written to.

use serde_json::Value;
use std::fs;
use std::path::Path;

const README: &str = "perf/README.md";

/// The least, the median and the greatest of some runs.
pub(crate) fn spread(mut runs: Vec<f64>) -> [f64; 3] {
    runs.sort_by(f64::total_cmp);
    let at = |index: usize| runs.get(index).copied().unwrap_or(f64::NAN);
    [at(0), at(runs.len() / 2), at(runs.len().saturating_sub(1))]
}

/// Writes rows as one JSON array, its brackets on lines of their own.
pub(crate) fn write_json(file: &str, rows: Vec<Value>) {
    let text = serde_json::to_string_pretty(&Value::Array(rows)).unwrap_or_default();
    fs::write(file, text + "\n").expect("the JSON can be written");
}

/// Writes `perf/results/NAME.csv`, and `table` into the README between the two lines for `name`.
pub(crate) fn write_results(name: &str, csv: &str, table: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(root.join(format!("perf/results/{name}.csv")), csv).expect("the CSV can be written");
    let begin = format!("<!-- {name}: rendered from results/{name}.csv -->");
    let end = format!("<!-- {name}: end -->");
    let file = root.join(README);
    let text = fs::read_to_string(&file).expect("the README can be read");
    let (before, rest) = text.split_once(&begin).expect("the README has the first line");
    let (_, after) = rest.split_once(&end).expect("the README has the second line");
    let whole = format!("{before}{begin}\n{table}{end}{after}");
    fs::write(file, whole).expect("the README can be written");
}
