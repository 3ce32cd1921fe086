//! What the examples share: where Python is, and which LM answers.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dspy_live::{Builder, Runtime};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub type Fallible<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// A runtime that asks the simulated LM over HTTP. Set `DSPY_LIVE_LM` (and what it needs) to ask a real one.
pub async fn start() -> Fallible<(Runtime, Option<SimulatedLm>)> {
    start_with(|builder| builder).await
}

/// As [`start`], with more settings.
pub async fn start_with(more: impl FnOnce(Builder) -> Builder) -> Fallible<(Runtime, Option<SimulatedLm>)> {
    let mut builder = Runtime::builder().module_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/programs"));
    if std::env::var_os("VIRTUAL_ENV").is_none() {
        builder = builder.venv(root().join(".venv"));
    }
    let mut simulated = None;
    if std::env::var_os("DSPY_LIVE_LM").is_none() {
        let lm = SimulatedLm::start().await?;
        builder = builder.lm("openai/simulated").api_base(&lm.url).api_key("any").lm_option("cache", false);
        simulated = Some(lm);
    }
    Ok((more(builder).start().await?, simulated))
}

/// `dspy-live sim`: an LM server that needs no network and no key. Ends when this is dropped.
pub struct SimulatedLm {
    pub url: String,
    _child: Child,
}

impl SimulatedLm {
    async fn start() -> Fallible<Self> {
        let venv = std::env::var_os("VIRTUAL_ENV").map_or_else(|| root().join(".venv"), PathBuf::from);
        let mut child = Command::new(venv.join("bin/dspy-live"))
            .args(["sim", "--port", "0", "--ttft", "0.05", "--tps", "200"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) {
                let url = url.to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { url, _child: child });
            }
        }
        Err("the simulated LM did not start".into())
    }
}
