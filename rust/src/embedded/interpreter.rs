//! Find the Python whose packages are wanted, and see that it is one that this crate can run.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The Python that this crate was linked with, such as `3.11`.
const LINKED: &str = env!("DSPY_LIVE_PYTHON");

/// What the wanted interpreter says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Interpreter {
    pub executable: String,
    pub version: String,
    pub prefix: String,
    pub exec_prefix: String,
    /// Its folders of packages.
    pub packages: Vec<String>,
    dspy_live: Option<String>,
}

const ASK: &str = r#"
import importlib.util, json, sys, sysconfig
found = importlib.util.find_spec("dspy_live")
here = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable,
    "version": "%d.%d" % sys.version_info[:2],
    "prefix": sys.prefix,
    "exec_prefix": sys.exec_prefix,
    "packages": list(dict.fromkeys([here["purelib"], here["platlib"], *(p for p in sys.path if p.endswith("-packages"))])),
    "dspy_live": found and found.origin,
}))
"#;

/// The interpreter of `venv`, else of `VIRTUAL_ENV`, else `python3` on the path.
pub(super) fn find(venv: Option<&Path>) -> Result<Interpreter> {
    let (python, why) = match venv {
        Some(venv) => (python_of(venv)?, "the builder's venv"),
        None => match std::env::var_os("VIRTUAL_ENV").filter(|value| !value.is_empty()) {
            Some(venv) => (python_of(Path::new(&venv))?, "VIRTUAL_ENV"),
            None => (PathBuf::from("python3"), "python3 on the PATH"),
        },
    };
    let found = ask(&python, why)?;
    check(&found, &python)?;
    Ok(found)
}

fn python_of(venv: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    let shown = venv.display();
    Err(Error::Setup(if venv.is_dir() {
        format!(
            "{shown} is no virtual environment: it has no bin/python. Make one with: python{LINKED} -m venv {shown}"
        )
    } else {
        format!("there is no virtual environment at {shown}. Make one with: python{LINKED} -m venv {shown}")
    }))
}

fn ask(python: &Path, why: &str) -> Result<Interpreter> {
    let shown = python.display();
    let setup = |what: String| Error::Setup(format!("{shown} ({why}) {what}"));
    let output = Command::new(python)
        .args(["-X", "utf8", "-c", ASK])
        .output()
        .map_err(|error| setup(format!("can't be run: {error}. Name a virtual environment with builder.venv(path)")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(setup(format!("does not work: {}", text.trim().lines().last().unwrap_or("it says nothing"))));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| setup(format!("can't be understood: {error}")))
}

fn check(found: &Interpreter, python: &Path) -> Result<()> {
    let shown = python.display();
    if found.version != LINKED {
        let version = &found.version;
        return Err(Error::Setup(format!(
            "{shown} is Python {version}, and this program was built with Python {LINKED}. Use a virtual environment of \
             Python {LINKED}, or build again with PYO3_PYTHON={shown}"
        )));
    }
    if found.dspy_live.is_none() {
        return Err(Error::Setup(format!(
            "the Python package dspy-live is not installed for {shown}. Install it with: {shown} -m pip install dspy-live"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Interpreter>) -> String {
        match result {
            Err(Error::Setup(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_helps() {
        let message = message(find(Some(Path::new("/nowhere/at/all"))));
        assert!(message.contains("/nowhere/at/all") && message.contains("-m venv"), "{message}");
        let message = self::message(find(Some(Path::new("/"))));
        assert!(message.contains("no bin/python"), "{message}");
    }

    #[test]
    fn another_python_and_a_missing_package_are_told_apart() {
        let mut found = Interpreter {
            executable: String::new(),
            version: "3.5".into(),
            prefix: String::new(),
            exec_prefix: String::new(),
            packages: vec![],
            dspy_live: None,
        };
        let text = check(&found, Path::new("/p")).unwrap_err().to_string();
        assert!(text.contains("3.5") && text.contains("PYO3_PYTHON=/p"), "{text}");
        found.version = LINKED.into();
        let text = check(&found, Path::new("/p")).unwrap_err().to_string();
        assert!(text.contains("/p -m pip install dspy-live"), "{text}");
    }
}
