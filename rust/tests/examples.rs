//! Every example runs to its end, against real DSPy and the simulated LM. Cargo builds them for the tests.
#![cfg(feature = "embedded")]

mod common;

use std::path::PathBuf;
use std::process::Command;

fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(|deps| deps.parent()).unwrap().join("examples")
}

#[test]
fn all_of_them_run() {
    let mut names: Vec<_> = std::fs::read_dir(common::root().join("rust/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 7, "{names:?}");
    for name in names {
        let output = Command::new(folder().join(&name))
            .env("VIRTUAL_ENV", common::venv())
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "true")
            .env_remove("DSPY_LIVE_LM")
            .output()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("--- {name}\n{text}");
    }
}
