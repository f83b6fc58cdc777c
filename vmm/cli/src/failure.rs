//! Exit codes, and the one line of an error.

use std::fmt;

/// Exit codes. A user's command in the guest (`-- CMD`) ends the program with its own status instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything passed, or was skipped.
    Success = 0,
    /// Tests failed, or a replay or a kernel's decision was not as recorded or predicted.
    Failed = 1,
    /// The command line makes no sense, or a file or folder that it names is not what it should be.
    Usage = 2,
    /// This machine lacks something: a program, memory, room, a place that can be written.
    Environment = 3,
    /// A guest hung or could not be run, or the program itself failed.
    Internal = 4,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command could not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// A sentence, for the line after `error:`.
    pub message: String,
    /// What to do about it, for a line of its own; many messages say it themselves.
    pub hint: Option<String>,
}

impl Failure {
    /// The command line makes no sense.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, error)
    }

    /// This machine lacks something.
    pub fn environment(error: impl fmt::Display) -> Self {
        Self::new(Exit::Environment, error)
    }

    /// Something went wrong that should not have.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(Exit::Internal, error)
    }

    /// The user wanted the end.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// With a line that says what to do.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    fn new(exit: Exit, error: impl fmt::Display) -> Self {
        Self { exit, message: error.to_string(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n hint: {hint}"),
            None => Ok(()),
        }
    }
}
