//! Streamed calls of one program, three ways: this crate, `spawn_blocking` with an attach, and pyo3-async-runtimes.
//!
//! `cargo bench` runs each in a process of its own, with a simulated LM in another, and prints a table.
#![allow(clippy::disallowed_methods)] // the baselines attach from Tokio's threads: that is what is measured

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{root, venv, Server};
use pyo3::prelude::*;
use serde_json::{json, Value};

const WAYS: [&str; 3] = ["dspy-live", "spawn_blocking", "pyo3-async-runtimes"];
/// Calls in flight, and calls in all.
const LOADS: [(usize, usize); 3] = [(1, 40), (32, 800), (500, 2000)];
/// What one reply has. A busy Python finds several at once on its socket and hands them on as one piece of text, so
/// the pieces are no measure.
const TOKENS: u64 = 64;
/// The LM's pace: 64 tokens, 20 ms to the first, then 500 a second: 0.15 s for a call that nothing holds up.
const PACE: [&str; 8] = ["--ttft", "0.02", "--tps", "500", "--jitter", "0", "--length", "64"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [way, flight, calls, url] => measure(way, flight.parse().unwrap(), calls.parse().unwrap(), url),
        _ => compare(),
    }
}

fn compare() {
    println!("| in flight | way | calls/s | CPU per token | longest stall of a timer |");
    println!("|---|---|---|---|---|");
    for (flight, calls) in LOADS {
        let mut said = None;
        for way in WAYS {
            let sim = Server::simulator(&PACE);
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args([way, &flight.to_string(), &calls.to_string(), &sim.url])
                .env("VIRTUAL_ENV", venv())
                .env("LITELLM_LOCAL_MODEL_COST_MAP", "true")
                .stderr(std::process::Stdio::inherit())
                .output()
                .unwrap();
            match serde_json::from_slice::<Value>(&output.stdout) {
                Ok(r) => {
                    assert_eq!(*said.get_or_insert_with(|| r["letters"].clone()), r["letters"], "{way} lost something");
                    let (rate, cpu, stall) = (number(&r, "rate"), number(&r, "cpu"), number(&r, "stall"));
                    println!("| {flight} | {way} | {rate:.1} | {cpu:.1} µs | {stall:.1} ms |");
                }
                Err(_) => println!("| {flight} | {way} | failed | | |"),
            }
        }
    }
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

fn measure(way: &str, flight: usize, calls: usize, url: &str) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = tokio.block_on(async {
        match way {
            "dspy-live" => {
                let runtime = dspy_live::Runtime::builder()
                    .lm("openai/simulated")
                    .api_base(url)
                    .api_key("any")
                    .lm_option("cache", false)
                    .start()
                    .await
                    .unwrap();
                let program = runtime.program("question -> answer").await.unwrap();
                load(flight, calls, move |question| ours(program.clone(), question)).await
            }
            "spawn_blocking" => {
                attach_by_hand(url);
                load(flight, calls, blocking).await
            }
            _ => {
                attach_by_hand(url);
                Python::attach(|py| {
                    let event_loop = py.import("plain").unwrap().call_method0("start_loop").unwrap();
                    EVENT_LOOP.set(event_loop.unbind()).unwrap();
                });
                load(flight, calls, awaiting).await
            }
        }
    });
    println!("{result}");
    // The baselines leave threads in Python that nothing ends.
    std::process::exit(0);
}

/// Run `calls` calls, `flight` at once, beside a timer that has nothing to do with them.
async fn load<F, R>(flight: usize, calls: usize, call: F) -> Value
where
    F: Fn(String) -> R + Clone + Send + 'static,
    R: std::future::Future<Output = u64> + Send,
{
    for n in 0..3 {
        call(format!("Warm {n}?")).await;
    }
    let (stop, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let timer = tokio::spawn({
        let (stop, longest) = (stop.clone(), longest.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let before = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                let late = before.elapsed().saturating_sub(Duration::from_millis(1));
                longest.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
            }
        }
    });
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..flight)
        .map(|_| {
            let (next, call) = (next.clone(), call.clone());
            tokio::spawn(async move {
                let mut letters = 0;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= calls as u64 {
                        return letters;
                    }
                    letters += call(format!("Number {n}?")).await;
                }
            })
        })
        .collect();
    let mut letters = 0;
    for worker in workers {
        letters += worker.await.unwrap();
    }
    let (took, used) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    stop.store(true, Ordering::Relaxed);
    timer.await.unwrap();
    let stall = longest.load(Ordering::Relaxed) as f64 / 1e3;
    json!({"rate": calls as f64 / took, "cpu": used / (calls as u64 * TOKENS) as f64 * 1e6, "stall": stall, "letters": letters})
}

async fn ours(program: dspy_live::Program, question: String) -> u64 {
    let mut stream = program.stream(json!({"question": question})).start().await.unwrap();
    let mut letters = 0;
    while let Some(event) = stream.recv().await.unwrap() {
        letters += event.token().map_or(0, |token| token.text.len() as u64);
    }
    letters
}

async fn blocking(question: String) -> u64 {
    let (send, mut receive) = tokio::sync::mpsc::channel::<String>(64);
    let call = tokio::task::spawn_blocking(move || {
        Python::attach(|py| {
            let tokens = py.import("plain").unwrap().call_method1("tokens", (question,)).unwrap();
            for token in tokens.try_iter().unwrap() {
                let token: String = token.unwrap().extract().unwrap();
                py.detach(|| send.blocking_send(token)).unwrap();
            }
        });
    });
    let mut letters = 0;
    while let Some(token) = receive.recv().await {
        letters += token.len() as u64;
    }
    call.await.unwrap();
    letters
}

static EVENT_LOOP: std::sync::OnceLock<Py<PyAny>> = std::sync::OnceLock::new();

async fn awaiting(question: String) -> u64 {
    use pyo3_async_runtimes::{into_future_with_locals, TaskLocals};

    let (stream, locals) = Python::attach(|py| {
        let locals = TaskLocals::new(EVENT_LOOP.get().unwrap().bind(py).clone());
        (py.import("plain").unwrap().call_method1("Tokens", (question,)).unwrap().unbind(), locals)
    });
    let mut letters = 0;
    loop {
        let next = Python::attach(|py| {
            into_future_with_locals(&locals, stream.bind(py).call_method0("next").unwrap()).unwrap()
        });
        let token = next.await.unwrap();
        let token: Option<String> = Python::attach(|py| token.extract(py).unwrap());
        match token {
            Some(token) => letters += token.len() as u64,
            None => return letters,
        }
    }
}

fn attach_by_hand(url: &str) {
    Python::initialize();
    Python::attach(|py| {
        let site = py.import("site").unwrap();
        let folder = venv().join("lib");
        let python = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        site.call_method1("addsitedir", (python.join("site-packages").display().to_string(),)).unwrap();
        let path = py.import("sys").unwrap().getattr("path").unwrap();
        path.call_method1("insert", (0, root().join("rust/benches").display().to_string())).unwrap();
        py.import("plain").unwrap().call_method1("configure", (url,)).unwrap();
    });
}

/// CPU time of this process, in seconds, to 10 ms.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = text.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
