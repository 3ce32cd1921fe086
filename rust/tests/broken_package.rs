//! A virtual environment whose dspy_live is damaged: it is told, and nothing hangs. One process, one story.
#![cfg(feature = "embedded")]

mod common;

use common::venv;
use dspy_live::{Error, Runtime};

#[tokio::test]
async fn a_package_that_can_not_be_imported_is_told() {
    let folder = std::env::temp_dir().join(format!("dspy-live-broken-{}", std::process::id()));
    let made = std::process::Command::new(venv().join("bin/python"))
        .args(["-m", "venv", "--without-pip"])
        .arg(&folder)
        .status();
    assert!(made.unwrap().success());
    let version = env!("CARGO_PKG_VERSION");
    let library = std::fs::read_dir(folder.join("lib")).unwrap().next().unwrap().unwrap().path();
    let package = library.join("site-packages/dspy_live");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("__init__.py"), format!("__version__ = '{version}'\nimport no_such_thing\n")).unwrap();

    // It would lead to another package.
    std::env::remove_var("PYTHONPATH");
    let result = Runtime::builder().venv(&folder).start().await;
    let Err(Error::Setup(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("no_such_thing") && text.contains("can't be imported"), "{text}");
    // The one start is not used up by it: the package that works is found in the same process.
    let again = Runtime::builder().venv(venv()).simulated_lm().start().await;
    std::fs::remove_dir_all(&folder).unwrap();
    let program = again.unwrap().program("question -> answer").await.unwrap();
    assert!(program.predict(serde_json::json!({"question": "Still?"})).await.unwrap().text("answer").is_some());
}
