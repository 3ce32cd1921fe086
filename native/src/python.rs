//! The module that Python imports.

use crate::plain::Rules;
use crate::splicer;
use crate::stream::Pattern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Counted up when what Python calls or gets changes; dspy-live takes no module that has another number than its own.
const INTERFACE: u32 = 1;

const EBADF: i32 = 9;

/// Text, held white space, LM events, client events, their bytes, unread bytes, unsent bytes, time of the last bytes.
type Released<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    u64,
    u64,
    u64,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    f64,
);

/// Moves plain text from the sockets of LMs to those of clients, for one event loop. Not for more than one thread.
#[pyclass(module = "dspy_live_native")]
struct Splicer {
    inner: splicer::Splicer<Py<PyAny>>,
}

#[pymethods]
impl Splicer {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            inner: splicer::Splicer::new()?,
        })
    }

    fn fileno(&self) -> RawFd {
        self.inner.descriptor().as_raw_fd()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// Take over two sockets until `release`; returns the stream's key. `run` names `owner` when it is over.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        lm: RawFd,
        client: RawFd,
        prefix: &[u8],
        ending: &[u8],
        before: &[u8],
        middle: &[u8],
        after: &[u8],
        seq: Option<u64>,
        stop: &[u8],
        lines: bool,
        escapes: bool,
        owner: Py<PyAny>,
    ) -> PyResult<usize> {
        let pattern = Pattern {
            prefix: prefix.to_vec(),
            ending: ending.to_vec(),
            before: before.to_vec(),
            middle: middle.to_vec(),
            after: after.to_vec(),
            rules: Rules::new(stop, lines, escapes),
        };
        if lm < 0 || client < 0 {
            return Err(std::io::Error::from_raw_os_error(EBADF).into());
        }
        // SAFETY: both are descriptors of sockets that the caller holds open during the call, which duplicates them.
        let (lm, client) = unsafe { (BorrowedFd::borrow_raw(lm), BorrowedFd::borrow_raw(client)) };
        Ok(self.inner.add(lm, client, pattern, seq, owner)?)
    }

    /// Move what has come; returns the owners of the streams that are to be released.
    fn run(&mut self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let mut over = Vec::new();
        self.inner.run(|owner| over.push(owner.clone_ref(py)))?;
        Ok(over)
    }

    /// When the last bytes of a stream came (monotonic seconds, 0 before any) and how many bytes its client got.
    fn state(&self, key: usize) -> Option<(f64, u64)> {
        self.inner.state(key)
    }

    /// Give a stream's sockets back, with all that Python has not seen; `None` where that was done already.
    fn release<'py>(&mut self, py: Python<'py>, key: usize) -> Option<Released<'py>> {
        let released = self.inner.release(key)?;
        let stream = &released.stream;
        Some((
            PyBytes::new(py, &stream.text),
            PyBytes::new(py, &stream.held),
            stream.events,
            stream.frames,
            stream.size,
            PyBytes::new(py, &released.unread),
            PyBytes::new(py, &released.unsent),
            released.heard,
        ))
    }
}

/// Cut the texts out of events: returns where the first one begins that is not of the pattern, how many there were
/// before it, and their texts, joined.
#[pyfunction]
fn cut(data: &[u8], at: usize, prefix: &[u8], ending: &[u8]) -> (usize, usize, String) {
    let found = crate::cut::cut(&data[at..], prefix, ending);
    (at + found.end, found.events, found.text)
}

#[pymodule]
fn dspy_live_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("INTERFACE", INTERFACE)?;
    module.add_function(wrap_pyfunction!(cut, module)?)?;
    module.add_class::<Splicer>()
}
