//! What was measured, as lines, JSON, CSV and Markdown.

use crate::support::clock::{self, Tsc};
use crate::support::frames::{Load, Size};
use crate::support::readme;
use crate::support::setup::Direction;
use holdfast_crypto::AeadAlgorithm;
use serde_json::{Value, json};
use std::fmt;

/// The window of every row but those that are about windows.
const USUAL_WINDOW: u32 = 1024;

/// Cycles of the fastest public vector graph (FD.io VPP 26.06, the better of its native and its
/// ipsec-mb engine), with the sizes of [`VPP_SIZES`]. Its machine was another one; see the README.
const VPP: [(Direction, u32, AeadAlgorithm, [u32; 6]); 8] = {
    use AeadAlgorithm::{Aes128Gcm16, Aes256Gcm16};
    use Direction::{Decrypt, Encrypt};
    [
        (Encrypt, 1, Aes128Gcm16, [127, 158, 185, 237, 273, 162]),
        (Encrypt, 1, Aes256Gcm16, [131, 166, 199, 252, 290, 167]),
        (Encrypt, 1000, Aes128Gcm16, [175, 226, 264, 323, 365, 235]),
        (Encrypt, 1000, Aes256Gcm16, [194, 238, 277, 350, 395, 251]),
        (Decrypt, 1, Aes128Gcm16, [151, 175, 205, 260, 287, 180]),
        (Decrypt, 1, Aes256Gcm16, [149, 178, 210, 267, 310, 183]),
        (Decrypt, 1000, Aes128Gcm16, [213, 254, 288, 343, 392, 256]),
        (Decrypt, 1000, Aes256Gcm16, [209, 255, 299, 364, 415, 260]),
    ]
};
const VPP_SIZES: [Size; 6] = crate::ALL_SIZES;

/// One load through one implementation.
pub(crate) struct Row {
    direction: Direction,
    load: Load,
    implementation: &'static str,
    /// Cycles a packet: the least, the median and the greatest of the runs.
    cycles: [f64; 3],
    mpps_p50: f64,
}

impl Row {
    pub(crate) fn new(
        direction: Direction,
        load: &Load,
        implementation: &'static str,
        runs: Vec<f64>,
        tsc: Tsc,
    ) -> Self {
        let cycles = readme::spread(runs);
        let [_, median, _] = cycles;
        Self { direction, load: *load, implementation, cycles, mpps_p50: tsc.mhz / median }
    }

    /// Words that name a load on the command line.
    pub(crate) fn name(direction: Direction, load: &Load) -> String {
        let Load { size, sas, flows, window_packets, .. } = load;
        let (direction, aead) = (direction.name(), load.algorithm.name());
        format!("{direction} {aead} {size} sas={sas} flows={flows} window={window_packets}")
    }

    fn as_json(&self) -> Value {
        let [min, p50, max] = self.cycles;
        json!({
            "bench": "graph",
            "direction": self.direction.name(),
            "aead": self.load.algorithm.name(),
            "size": self.load.size.to_string(),
            "sas": self.load.sas,
            "flows": self.load.flows,
            "window": self.load.window_packets,
            "implementation": self.implementation,
            "cycles_min": min,
            "cycles_p50": p50,
            "cycles_max": max,
            "mpps_p50": self.mpps_p50,
        })
    }

    fn as_csv(&self) -> String {
        let Load { size, sas, flows, window_packets, .. } = self.load;
        let (direction, aead) = (self.direction.name(), self.load.algorithm.name());
        let ([min, p50, max], mpps) = (self.cycles, self.mpps_p50);
        let implementation = self.implementation;
        format!(
            "graph,{direction},{aead},{size},{sas},{flows},{window_packets},{implementation},\
             {min:.1},{p50:.1},{max:.1},{mpps:.2}"
        )
    }

    /// Everything but the size and the implementation.
    fn group(&self) -> (Direction, AeadAlgorithm, u32, u32, u32) {
        let Load { algorithm, sas, flows, window_packets, .. } = self.load;
        (self.direction, algorithm, sas, flows, window_packets)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([min, p50, max], mpps) = (self.cycles, self.mpps_p50);
        let (name, implementation) = (Self::name(self.direction, &self.load), self.implementation);
        write!(f, "{name} {implementation}: {min:.0} / {p50:.0} / {max:.0} cycles, {mpps:.2} Mpps")
    }
}

/// Writes the JSON where it is wanted; with `results` also the CSV and the table in the README.
pub(crate) fn write(rows: &[Row], json: Option<&str>, results: bool, tsc: Tsc) {
    if let Some(file) = json {
        readme::write_json(file, rows.iter().map(Row::as_json).collect());
    }
    if results {
        let head = "bench,direction,aead,size,sas,flows,window,implementation,\
                    cycles_min,cycles_p50,cycles_max,mpps_p50\n";
        let lines: String = rows.iter().map(|row| row.as_csv() + "\n").collect();
        readme::write_results("graph", &(head.to_owned() + &lines), &markdown(rows, tsc));
    }
}

/// A line for each load and implementation, a column for each size.
fn markdown(rows: &[Row], tsc: Tsc) -> String {
    let mut text = format!(
        "{}, {} MHz TSC. Cycles a packet: least / median of the runs.\n\n",
        clock::machine(),
        tsc.mhz
    );
    text += "| direction | AEAD | SAs | flows | window | with |";
    text += &crate::ALL_SIZES.iter().map(|size| format!(" {size} |")).collect::<String>();
    text += "\n|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    let mut groups = Vec::new();
    for row in rows {
        if !groups.contains(&row.group()) {
            groups.push(row.group());
        }
    }
    for group in groups {
        text += &lines_of(rows, group);
    }
    text
}

fn lines_of(rows: &[Row], group: (Direction, AeadAlgorithm, u32, u32, u32)) -> String {
    let (direction, algorithm, sas, flows, window) = group;
    let own: Vec<&Row> = rows.iter().filter(|row| row.group() == group).collect();
    let mut with: Vec<&str> = Vec::new();
    for row in &own {
        if !with.contains(&row.implementation) {
            with.push(row.implementation);
        }
    }
    let head =
        format!("| {} | {} | {sas} | {flows} | {window} |", direction.name(), algorithm.name());
    let line = |name: &str, cell: &dyn Fn(Size) -> String| {
        let cells: String =
            crate::ALL_SIZES.iter().map(|size| format!(" {} |", cell(*size))).collect();
        format!("{head} {name} |{cells}\n")
    };
    let mut text: String = with
        .iter()
        .map(|name| {
            line(name, &|size| {
                let row =
                    own.iter().find(|row| row.load.size == size && row.implementation == *name);
                row.map_or("-".to_owned(), |row| {
                    format!("{:.0} / {:.0}", row.cycles[0], row.cycles[1])
                })
            })
        })
        .collect();
    let plain = flows == sas && window == USUAL_WINDOW;
    let theirs = VPP.iter().find(|(d, s, a, _)| (*d, *s, *a) == (direction, sas, algorithm));
    if let Some((.., cycles)) = theirs.filter(|_| plain) {
        text += &line("VPP, its machine", &|size| {
            let at = VPP_SIZES.iter().position(|known| *known == size);
            at.and_then(|at| cycles.get(at)).map_or("-".to_owned(), u32::to_string)
        });
    }
    text
}
