//! What was measured, as lines, JSON, CSV and Markdown.

use crate::case::Case;
use crate::support::clock::{self, Tsc};
use crate::support::frames::{Load, Size};
use crate::support::readme;
use crate::support::setup::Direction;
use crate::{Figure, PORTS_ALONE};
use holdfast_crypto::AeadAlgorithm;
use serde_json::{Value, json};
use std::fmt;

/// What the rows of our own are called.
pub(crate) const OURS: &str = "holdfast";

/// One case through one implementation.
pub(crate) struct Row {
    case: Case,
    implementation: &'static str,
    /// Cycles a packet: the least, the median and the greatest of the windows.
    cycles: [f64; 3],
    mpps_p50: f64,
}

impl Row {
    pub(crate) fn new(
        case: Case,
        implementation: &'static str,
        figures: &[Figure],
        tsc: Tsc,
    ) -> Self {
        let runs = figures
            .iter()
            .map(|figure| tsc.cycles(figure.elapsed) / figure.packets as f64)
            .collect();
        let cycles = readme::spread(runs);
        let [_, median, _] = cycles;
        Self { case, implementation, cycles, mpps_p50: tsc.mhz / median }
    }

    /// Only our worker looks for replays.
    fn window(&self) -> Option<u32> {
        let replays = self.case.direction == Direction::Decrypt && self.implementation == OURS;
        replays.then_some(self.case.load.window_packets)
    }

    fn as_json(&self) -> Value {
        let ([min, p50, max], Load { algorithm, size, sas, flows, .. }) =
            (self.cycles, self.case.load);
        json!({
            "bench": "wire",
            "direction": self.case.direction.name(),
            "aead": algorithm.name(),
            "size": size.to_string(),
            "sas": sas,
            "flows": flows,
            "window": self.window(),
            "implementation": self.implementation,
            "cycles_min": min,
            "cycles_p50": p50,
            "cycles_max": max,
            "mpps_p50": self.mpps_p50,
        })
    }

    fn as_csv(&self) -> String {
        let Load { algorithm, size, sas, flows, .. } = self.case.load;
        let (direction, aead) = (self.case.direction.name(), algorithm.name());
        let ([min, p50, max], mpps) = (self.cycles, self.mpps_p50);
        let window = self.window().map(|packets| packets.to_string()).unwrap_or_default();
        let implementation = self.implementation;
        format!(
            "wire,{direction},{aead},{size},{sas},{flows},{window},{implementation},\
             {min:.1},{p50:.1},{max:.1},{mpps:.2}"
        )
    }

    /// Everything but the size and the implementation.
    const fn group(&self) -> (Direction, AeadAlgorithm, u32) {
        (self.case.direction, self.case.load.algorithm, self.case.load.sas)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([min, p50, max], mpps) = (self.cycles, self.mpps_p50);
        let (case, implementation) = (self.case, self.implementation);
        write!(f, "{case} {implementation}: {min:.0} / {p50:.0} / {max:.0} cycles, {mpps:.2} Mpps")
    }
}

/// Writes the JSON where it is wanted; with `results` also the CSV and the table in the README.
pub(crate) fn write(rows: &[Row], json: Option<&String>, results: bool, tsc: Tsc) {
    if let Some(file) = json {
        readme::write_json(file, rows.iter().map(Row::as_json).collect());
    }
    if results {
        let head = "bench,direction,aead,size,sas,flows,window,implementation,\
                    cycles_min,cycles_p50,cycles_max,mpps_p50\n";
        let lines: String = rows.iter().map(|row| row.as_csv() + "\n").collect();
        readme::write_results("wire", &(head.to_owned() + &lines), &markdown(rows, tsc));
    }
}

/// A line for each implementation, a column for each size, and how they compare.
fn markdown(rows: &[Row], tsc: Tsc) -> String {
    let (mut groups, mut sizes) = (Vec::new(), Vec::new());
    for row in rows {
        if !groups.contains(&row.group()) {
            groups.push(row.group());
        }
        if !sizes.contains(&row.case.load.size) {
            sizes.push(row.case.load.size);
        }
    }
    let mut text = format!(
        "{}, {} MHz TSC. Mpps (cycles a packet: least / median of the windows).\n\n",
        clock::machine(),
        tsc.mhz
    );
    text += "| direction | AEAD | SAs | with |";
    text += &sizes.iter().map(|size| format!(" {size} |")).collect::<String>();
    text += "\n|---|---|---|---|";
    text += &"---|".repeat(sizes.len());
    text += "\n";
    for group in groups {
        let own: Vec<&Row> = rows.iter().filter(|row| row.group() == group).collect();
        text += &lines_of(&own, group, &sizes);
    }
    text
}

fn lines_of(own: &[&Row], group: (Direction, AeadAlgorithm, u32), sizes: &[Size]) -> String {
    let (direction, algorithm, sas) = group;
    let head = format!("| {} | {} | {sas} |", direction.name(), algorithm.name());
    let line = |name: &str, cell: &dyn Fn(Size) -> String| {
        let cells: String = sizes.iter().map(|size| format!(" {} |", cell(*size))).collect();
        format!("{head} {name} |{cells}\n")
    };
    let mut with: Vec<&str> = Vec::new();
    for row in own {
        if !with.contains(&row.implementation) {
            with.push(row.implementation);
        }
    }
    let of = |size: Size, name: &str| {
        own.iter().find(|row| row.case.load.size == size && row.implementation == name)
    };
    let mut text: String = with
        .iter()
        .map(|name| {
            line(name, &|size| {
                of(size, name).map_or("-".to_owned(), |row| {
                    let [min, p50, _] = row.cycles;
                    format!("{:.1} ({min:.0} / {p50:.0})", row.mpps_p50)
                })
            })
        })
        .collect();
    text += &line("**times the better gateway, by least / median**", &|size| {
        let best = |at: usize| {
            let others = with.iter().filter(|name| ![OURS, PORTS_ALONE].contains(name));
            others
                .filter_map(|name| of(size, name)?.cycles.get(at).copied())
                .fold(f64::INFINITY, f64::min)
        };
        of(size, OURS).map_or("-".to_owned(), |row| {
            let [min, p50, _] = row.cycles;
            format!("**{:.2} / {:.2}**", best(0) / min, best(1) / p50)
        })
    });
    text
}
