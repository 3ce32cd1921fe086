//! A proxy between a client and a server that cuts connections where the test says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a reader's requests for events, by how many there were of the same run before.
pub type Cut = fn(&mut Random, usize) -> Allowed;

/// How much of a reply passes.
#[derive(Clone, Copy)]
pub enum Allowed {
    All,
    /// So many bytes; then the connection is closed or, about as often, reset.
    Bytes(usize),
    /// The connection is closed, and the server is not asked.
    Refused,
}

pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

struct State {
    to: Mutex<String>,
    cut: Mutex<Cut>,
    cuts: AtomicUsize,
    /// The first lines of requests.
    asked: Mutex<Vec<String>>,
    tries: Mutex<HashMap<String, usize>>,
    random: Mutex<Random>,
}

impl Proxy {
    pub async fn start(to: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            to: Mutex::new(to.trim_start_matches("http://").to_owned()),
            cut: Mutex::new(cut),
            cuts: AtomicUsize::new(0),
            asked: Mutex::default(),
            tries: Mutex::default(),
            random: Mutex::new(Random(7)),
        });
        let of_task = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, of_task.clone()));
            }
        });
        Self { url, state }
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// How many requests began with `start`.
    pub fn asked(&self, start: &str) -> usize {
        self.state.asked.lock().unwrap().iter().filter(|line| line.starts_with(start)).count()
    }

    pub fn cut_as(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = cut;
    }

    /// Requests go elsewhere from now on.
    pub fn lead_to(&self, url: &str) {
        *self.state.to.lock().unwrap() = url.trim_start_matches("http://").to_owned();
    }
}

impl State {
    /// A request that has just come; what passes of its reply.
    fn request(&self, bytes: &[u8]) -> Allowed {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().next().unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(line.clone());
        if !line.contains("/events") {
            return Allowed::All;
        }
        let mut tries = self.tries.lock().unwrap();
        let before = tries.entry(line).or_insert(0);
        *before += 1;
        let cut = *self.cut.lock().unwrap();
        cut(&mut self.random.lock().unwrap(), *before - 1)
    }
}

async fn carry(mut client: TcpStream, state: Arc<State>) {
    let to = state.to.lock().unwrap().clone();
    let Ok(mut server) = TcpStream::connect(&to).await else { return };
    let mut allowed = Allowed::All;
    let (mut asked, mut replied) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                if *state.to.lock().unwrap() != to {
                    return;
                }
                allowed = state.request(&asked[..n]);
                if matches!(allowed, Allowed::Refused) {
                    return;
                }
                if server.write_all(&asked[..n]).await.is_err() { return }
            }
            read = server.read(&mut replied) => {
                let Ok(n @ 1..) = read else { return };
                let passes = match &mut allowed {
                    Allowed::All | Allowed::Refused => n,
                    Allowed::Bytes(left) => {
                        let passes = n.min(*left);
                        *left -= passes;
                        passes
                    }
                };
                if client.write_all(&replied[..passes]).await.is_err() { return }
                if passes < n {
                    if n % 2 == 1 {
                        let _ = client.set_zero_linger();
                    }
                    state.cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }
}

/// The same numbers in each run of a test.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}
