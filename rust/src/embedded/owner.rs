//! The one thread that owns Python. No other module of this crate attaches to the interpreter.
#![expect(clippy::disallowed_methods, reason = "this is the thread that Python belongs to")]

use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyTuple};
use tokio::sync::oneshot;

use super::interpreter::Interpreter;
use super::shared::Shared;
use super::Settings;
use crate::error::{Error, Failure, Result};

/// The number of the protocol that [`Shared`] speaks; `dspy_live.embed.wire` has the other side's.
const PROTOCOL: u32 = 1;

/// Makes the process's interpreter that of the virtual environment: its packages before the base's, its `.pth` files
/// carried out, its prefix and executable, which child processes are started with.
const ADOPT: &std::ffi::CStr = cr#"
import site, sys
sys.prefix, sys.exec_prefix = prefix, exec_prefix
sys.executable = sys._base_executable = executable
sys.path[:] = [path for path in sys.path if not path.endswith("-packages") or path in packages]
known = list(sys.path)
for folder in packages:
    site.addsitedir(folder)
added = [path for path in sys.path if path not in known]
standard = [path for path in known if not path.endswith("-packages")]
sys.path[:] = [*module_paths, *standard, *added, *(path for path in known if path.endswith("-packages"))]
"#;

/// Start the thread. `ready` hears when Python takes commands, or why it can't.
pub(super) fn spawn(
    shared: Arc<Shared>,
    wake: UnixStream,
    found: Interpreter,
    settings: Settings,
    ready: oneshot::Sender<Result<()>>,
) -> Result<()> {
    let run = move || {
        let mut ready = Some(ready);
        let result = catch_unwind(AssertUnwindSafe(|| own(&shared, wake, &found, &settings, &mut ready)))
            .unwrap_or_else(|_| Err(Error::Died("its thread panicked".into())));
        if let (Some(ready), Err(error)) = (ready, &result) {
            let _ = ready.send(Err(error.clone()));
        }
        shared.die(&result.err().unwrap_or(Error::Shutdown));
        tracing::debug!("Python's thread has ended");
    };
    std::thread::Builder::new()
        .name("dspy-live-python".into())
        // What Python's own main thread has; deep recursion in a program ends in a RecursionError, not in a crash.
        .stack_size(16 << 20)
        .spawn(run)
        .map(drop)
        .map_err(|error| Error::Setup(format!("no thread can be started: {error}")))
}

fn own(
    shared: &Arc<Shared>,
    wake: UnixStream,
    found: &Interpreter,
    settings: &Settings,
    ready: &mut Option<oneshot::Sender<Result<()>>>,
) -> Result<()> {
    Python::initialize();
    Python::attach(|py| {
        let embed = import(py, found, settings).map_err(|error| refused(py, &error, found))?;
        let run = || -> PyResult<()> {
            let protocol: u32 = embed.getattr("PROTOCOL")?.extract()?;
            if protocol != PROTOCOL {
                let text = format!(
                    "the Python package dspy-live speaks protocol {protocol}, this crate {PROTOCOL}: install the same version of both"
                );
                return Err(pyo3::exceptions::PyRuntimeError::new_err(text));
            }
            let take = take(py, shared.clone())?;
            let deliver = deliver(py, shared.clone())?;
            let settings = serde_json::to_vec(settings).expect("settings are plain data");
            let main = embed.getattr("main")?;
            if let Some(ready) = ready.take() {
                let _ = ready.send(Ok(()));
            }
            main.call1((take, deliver, wake.into_raw_fd(), PyBytes::new(py, &settings)))?;
            Ok(())
        };
        run().map_err(|error| died(py, &error))
    })
}

fn import<'py>(py: Python<'py>, found: &Interpreter, settings: &Settings) -> PyResult<Bound<'py, PyModule>> {
    let names = PyDict::new(py);
    names.set_item("prefix", &found.prefix)?;
    names.set_item("exec_prefix", &found.exec_prefix)?;
    names.set_item("executable", &found.executable)?;
    names.set_item("packages", &found.packages)?;
    let paths: Vec<String> = settings.module_paths.iter().map(|path| path.display().to_string()).collect();
    names.set_item("module_paths", paths)?;
    py.run(ADOPT, Some(&names), None)?;
    py.import("dspy_live.embed")
}

/// `take()`: the commands that wait.
fn take(py: Python<'_>, shared: Arc<Shared>) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(
        py,
        Some(c"take"),
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            PyBytes::new(args.py(), &shared.take()).unbind()
        },
    )
}

/// `deliver(batch)`: what runs have produced. No panic reaches Python, where it would end the loop.
fn deliver(py: Python<'_>, shared: Arc<Shared>) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(
        py,
        Some(c"deliver"),
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            let batch = args.get_item(0)?;
            let batch = batch.cast::<PyBytes>()?.as_bytes();
            match catch_unwind(AssertUnwindSafe(|| shared.deliver(batch))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a batch is lost"),
                Err(_) => tracing::error!("delivering a batch panicked; the loop goes on"),
            }
            Ok(())
        },
    )
}

/// Python can't do what is needed; say what helps.
fn refused(py: Python<'_>, error: &PyErr, found: &Interpreter) -> Error {
    let failure = failure(py, error);
    Error::Setup(format!(
        "dspy_live can't be imported by {} (Python {}): {}: {}\n{}",
        found.executable, found.version, failure.kind, failure.message, failure.traceback
    ))
}

fn died(py: Python<'_>, error: &PyErr) -> Error {
    let failure = failure(py, error);
    Error::Died(format!("{}: {}\n{}", failure.kind, failure.message, failure.traceback))
}

fn failure(py: Python<'_>, error: &PyErr) -> Failure {
    let traceback = error.traceback(py).and_then(|traceback| traceback.format().ok());
    Failure {
        kind: error.get_type(py).name().map_or_else(|_| "an exception".into(), |name| name.to_string()),
        message: error.value(py).str().map_or_else(|_| "no text".into(), |text| text.to_string()),
        code: "internal".into(),
        traceback: traceback.unwrap_or_default(),
        retry_after: None,
    }
}
