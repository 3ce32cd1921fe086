//! A simulated LM in a process of its own, asked over plain HTTP, and a runtime for all tests of one file.
#![allow(dead_code)]

pub mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

/// After this a test fails: processes of a busy machine may stand still for seconds.
pub const BOUND: Duration = Duration::from_secs(30);

/// Wait until something is so.
pub async fn until(what: &str, ok: impl Fn() -> bool) {
    let start = Instant::now();
    while !ok() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A path for a file that is not there yet: of this process and this name alone.
pub fn new_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("dspy-live-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent").to_owned()
}

pub fn venv() -> PathBuf {
    std::env::var_os("VIRTUAL_ENV").map_or_else(|| root().join(".venv"), PathBuf::from)
}

/// A server of the Python package that ends with this value, and with this process in any case.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Start `dspy-live ARGS`, and wait for the line with its address.
    pub fn start(args: &[&str]) -> Self {
        // A test's statics are never dropped; the end of standard input is what tells that this process is gone.
        // Only the server has the pipe, so that its end ends our reading.
        let script = r#""$0" "$@" </dev/null & trap "kill -9 $! 2>/dev/null" EXIT; exec >/dev/null; cat"#;
        let mut child = Command::new("bash")
            .args(["-c", script])
            .arg(venv().join("bin/dspy-live"))
            .args(args)
            .current_dir(root().join("rust/tests/programs"))
            .env("PYTHONUNBUFFERED", "1")
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dspy-live starts");
        let mut url = None;
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(at) = line.find("http://127.0.0.1:") {
                let rest = &line[at..];
                let end = rest.find(|c: char| c.is_whitespace() || c == '\u{1b}').unwrap_or(rest.len());
                url = Some(rest[..end].trim_end_matches(['/', '.', ',']).to_owned());
                break;
            }
        }
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.unwrap_or_else(|| panic!("dspy-live {} ended before it said where it is", args.join(" ")));
        Self { child, url }
    }

    /// The simulated LM, with an address for an LM.
    pub fn simulator(args: &[&str]) -> Self {
        Self::start(&[&["sim", "--port", "0"], args].concat())
    }

    /// `dspy-live serve` of the tests' programs, which ask `sim` and remember no answer; its key is `secret`.
    pub fn serving(sim: &Self, args: &[&str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let lm = format!(
            "[lm]\nmodel = \"openai/simulated\"\napi_base = \"{}\"\napi_key = \"any\"\ncache = false\nnum_retries = 0\n",
            sim.url
        );
        let name = format!("dspy-live-{}-{}.toml", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, lm).expect("a temporary file");
        let programs = ["predict=rust_programs:predict", "rust_programs:typed", "rust_programs:failing"];
        let file_of = ["--config", file.to_str().expect("UTF-8")];
        let options = ["--key", "secret", "--port", "0", "--no-ledger"];
        let server = Self::start(&[&["serve"], &programs[..], &file_of, &options, args].concat());
        let _ = std::fs::remove_file(file);
        server
    }

    fn address(&self) -> &str {
        self.url.trim_start_matches("http://").split('/').next().expect("an address")
    }

    pub fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut socket = TcpStream::connect(self.address()).expect("it listens");
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).expect("it reads");
        socket.set_read_timeout(Some(BOUND)).expect("a time");
        let mut reader = BufReader::new(socket);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("it answers");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("all of it");
        serde_json::from_slice(&body).expect("JSON")
    }

    pub fn stats(&self) -> Value {
        self.request("GET", "/stats", &json!({}))
    }

    pub fn reset(&self) {
        self.request("POST", "/reset", &json!({}));
    }

    /// Options for the next request.
    pub fn next(&self, options: &Value) {
        self.request("POST", "/next", options);
    }

    /// Wait until one of the statistics is what `ok` wants.
    pub async fn until(&self, name: &str, ok: impl Fn(u64) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let value = self.stats()[name].as_u64().unwrap_or_else(|| panic!("a number {name:?}"));
            if ok(value) {
                return start.elapsed();
            }
            assert!(start.elapsed() < BOUND, "{name} stays {value}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Resident memory of this process, in bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}
