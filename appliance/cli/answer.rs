//! How a command ends.

use serde::Serialize;
use std::fmt;

/// Exit codes. Scripts rely on them; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// It did not work.
    Failure = 1,
    /// The command makes no sense.
    Usage = 2,
    /// The cluster is not whole: it answered and says so, or it refused because of that.
    Degraded = 3,
    /// Only the owner can do this.
    NotOwner = 4,
}

impl Exit {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failure => "failed",
            Self::Usage => "usage",
            Self::Degraded => "degraded",
            Self::NotOwner => "not_owner",
        }
    }
}

/// What a command found out.
#[derive(Debug)]
pub(super) struct Answer {
    /// For people.
    pub(super) text: String,
    /// For programs.
    pub(super) json: String,
    /// Remarks for people that are not part of the answer.
    pub(super) notes: Vec<String>,
    /// How it ends.
    pub(super) exit: Exit,
}

impl Answer {
    /// A good answer: `text` for people, `value` for programs.
    pub(super) fn new(text: String, value: &impl Serialize) -> Result<Self, Fault> {
        let json = serde_json::to_string_pretty(value).map_err(|error| Fault {
            exit: Exit::Failure,
            message: format!("the answer cannot be written as JSON: {error}"),
            next_action: String::new(),
        })?;
        Ok(Self { text, json, notes: Vec::new(), exit: Exit::Ok })
    }

    /// The same answer with another end.
    pub(super) fn ending(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(super) struct Fault {
    /// How it ends.
    pub(super) exit: Exit,
    /// What happened; one line, except for the list of a file's problems.
    pub(super) message: String,
    /// What to do about it; may be empty.
    pub(super) next_action: String,
}

impl Fault {
    /// A plain failure.
    pub(super) fn failure(message: impl fmt::Display, next_action: impl Into<String>) -> Self {
        Self { exit: Exit::Failure, message: message.to_string(), next_action: next_action.into() }
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let (message, next_action) = (&self.message, &self.next_action);
        let error = serde_json::json!({
            "error": { "kind": self.exit.name(), "message": message, "next_action": next_action }
        });
        format!("{error:#}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holdfast: {}", self.message)?;
        if self.next_action.is_empty() {
            return Ok(());
        }
        write!(f, "\nNEXT ACTION: {}", self.next_action)
    }
}
