//! The operator's tool. Everything is in [`holdfast::cli`].

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args_os();
    let exit = holdfast::cli::run(words, &mut io::stdout().lock(), &mut io::stderr().lock());
    ExitCode::from(exit as u8)
}
