//! scapy, asked by the tests: see `esp.py` beside this file for the questions.
#![allow(clippy::expect_used, clippy::panic, reason = "a test's helper fails its test")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A scapy process that answers questions until it is dropped.
pub(crate) struct Scapy {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Scapy {
    pub(crate) fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scapy/esp.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts; scripts/test installs it");
        let questions = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, questions, answers }
    }

    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.questions, "{question}").expect("scapy reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("scapy answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("scapy failed at {question}"))
    }
}

impl Drop for Scapy {
    fn drop(&mut self) {
        // It may have gone by itself already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The octets hexadecimal text stands for.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digit_pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit_pair).collect()
}
