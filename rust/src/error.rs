//! What can go wrong, by whose fault it is.

use std::time::Duration;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that Python told of, in the process or over HTTP.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// The exception's class, such as `ValueError` or `dspy.utils.exceptions.LMServerError`.
    pub kind: String,
    /// The exception's text.
    pub message: String,
    /// A stable code for programs, such as `program_failed` or `lm_timeout`; the same as in the server's replies.
    pub code: String,
    /// The Python traceback; empty from a server, which shows none to its clients.
    pub traceback: String,
    /// How long the other side asked to wait before another try.
    pub retry_after: Option<Duration>,
}

/// Everything that this crate's functions fail with.
///
/// [`code`](Error::code) is stable and meant for programs, the text for people.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program raised: a bug in it, or in what it was asked.
    #[error("the program raised {}: {}", .0.kind, .0.message)]
    Program(Box<Failure>),
    /// The LM's endpoint failed: unreachable, refused, or its reply could not be read.
    #[error("the LM failed: {}", .0.message)]
    Lm(Box<Failure>),
    /// The inputs do not fit the program.
    #[error("invalid input: {}", .0.message)]
    Input(Box<Failure>),
    /// There is no room for this call now, or a rate limit is reached; see [`Error::retry_after`].
    #[error("{}", .0.message)]
    Overloaded(Box<Failure>),
    /// Any other failure that Python reported under a code of its own: a budget, a circuit, a configuration.
    #[error("{}", .0.message)]
    Other(Box<Failure>),
    /// The time that the caller gave is up; the work was cancelled.
    #[error("no result within {after:?}")]
    Timeout {
        /// The time that was given.
        after: Duration,
    },
    /// The run was cancelled, by a handle or in Python.
    #[error("the run was cancelled")]
    Cancelled,
    /// The runtime is shutting down, or has; or the Tokio runtime that carried a remote run was dropped.
    #[error("the runtime has shut down")]
    Shutdown,
    /// A second start in one process: Python can be embedded once.
    #[error("Python is already running in this process; clone the Runtime that started it")]
    AlreadyStarted,
    /// Python, its version, its packages or a server is not what the builder asked for; the text says what to do.
    #[error("{0}")]
    Setup(String),
    /// A value could not be turned into JSON or back into the type that was asked for.
    #[error("{0}")]
    Value(String),
    /// The connection to the server failed (feature `remote`).
    #[error("the server can't be reached: {0}")]
    Connection(String),
    /// A remote stream lost its connection and can't go on (feature `remote`): the server did not come back, or it no
    /// longer has the run or its events. What came before is in order and whole.
    #[error("the stream lost its connection and can't go on: {0}")]
    Lost(String),
    /// Python's thread is gone without having been asked to; a bug, of which standard error has the traceback.
    #[error("Python's thread has ended: {0}")]
    Died(String),
}

impl Error {
    /// A stable name of the failure, for programs: the codes of the Python side, and a few of this one.
    pub fn code(&self) -> &str {
        match self {
            Self::Timeout { .. } => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Shutdown => "draining",
            Self::AlreadyStarted => "already_started",
            Self::Setup(_) => "configuration",
            Self::Value(_) => "invalid_value",
            Self::Connection(_) => "connection_failed",
            Self::Lost(_) => "connection_lost",
            Self::Died(_) => "internal",
            _ => self.failure().map_or("internal", |failure| &failure.code),
        }
    }

    /// What Python told, where it was Python that failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Program(failure)
            | Self::Lm(failure)
            | Self::Input(failure)
            | Self::Overloaded(failure)
            | Self::Other(failure) => Some(failure),
            _ => None,
        }
    }

    /// The Python traceback, where there is one.
    pub fn traceback(&self) -> Option<&str> {
        self.failure().map(|failure| failure.traceback.as_str()).filter(|traceback| !traceback.is_empty())
    }

    /// How long the other side asked to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure().and_then(|failure| failure.retry_after)
    }

    /// True where another try may succeed: the LM or the connection failed, or there was no room.
    ///
    /// What the program or its caller did wrong fails again, and a refusal of the LM (`lm_refused`: a wrong key, an
    /// unknown model) does too.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Lm(failure) => failure.code != "lm_refused",
            Self::Overloaded(_) | Self::Connection(_) | Self::Lost(_) => true,
            Self::Other(failure) => failure.code == "stream_broken" || failure.code.ends_with("_timeout"),
            _ => false,
        }
    }

    /// The error for what Python reported.
    pub(crate) fn from_failure(failure: Failure) -> Self {
        let failure = Box::new(failure);
        match failure.code.as_str() {
            "program_failed" => Self::Program(failure),
            "cancelled" => Self::Cancelled,
            "invalid_input" => Self::Input(failure),
            "overloaded" | "rate_limited" | "circuit_open" | "draining" => Self::Overloaded(failure),
            code if code.starts_with("lm_") => Self::Lm(failure),
            _ => Self::Other(failure),
        }
    }

    pub(crate) fn value(what: &str, error: serde_json::Error) -> Self {
        Self::Value(format!("{what}: {error}"))
    }
}

/// A failure as it stands on both wires.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct WireFailure {
    #[serde(default, alias = "type")]
    pub code: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub traceback: String,
    #[serde(default)]
    pub retry_after: Option<f64>,
}

impl From<WireFailure> for Error {
    fn from(wire: WireFailure) -> Self {
        let kind = if wire.kind.is_empty() { wire.code.clone() } else { wire.kind };
        Self::from_failure(Failure {
            kind,
            message: wire.message,
            code: wire.code,
            traceback: wire.traceback,
            retry_after: wire.retry_after.and_then(|s| Duration::try_from_secs_f64(s).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> Error {
        let json = serde_json::json!({"code": code, "kind": "K", "message": "m", "retry_after": 1.5});
        serde_json::from_value::<WireFailure>(json).unwrap().into()
    }

    #[test]
    fn whose_fault_it_is_follows_from_the_code() {
        assert!(matches!(error("program_failed"), Error::Program(_)));
        assert!(matches!(error("lm_timeout"), Error::Lm(_)));
        assert!(matches!(error("invalid_input"), Error::Input(_)));
        assert!(matches!(error("rate_limited"), Error::Overloaded(_)));
        assert!(matches!(error("cancelled"), Error::Cancelled));
        assert!(matches!(error("budget_exceeded"), Error::Other(_)));
        assert_eq!(error("lm_timeout").code(), "lm_timeout");
        assert_eq!(error("rate_limited").retry_after(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn only_what_may_go_better_is_tried_again() {
        for code in ["lm_failed", "lm_timeout", "lm_rate_limited", "lm_bad_reply", "overloaded", "first_token_timeout"]
        {
            assert!(error(code).is_retryable(), "{code}");
        }
        for code in ["program_failed", "lm_refused", "invalid_input", "cancelled", "budget_exceeded"] {
            assert!(!error(code).is_retryable(), "{code}");
        }
    }

    #[test]
    fn a_servers_error_object_reads_the_same() {
        let object = serde_json::json!({"type": "lm_failed", "message": "down", "run_id": "r"});
        let error: Error = serde_json::from_value::<WireFailure>(object).unwrap().into();
        assert_eq!((error.code(), error.failure().unwrap().kind.as_str()), ("lm_failed", "lm_failed"));
        assert_eq!(error.traceback(), None);
    }
}
