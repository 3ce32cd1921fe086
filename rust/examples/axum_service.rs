//! An axum service: `/predict`, `/predict/stream` (server-sent events), `/ws` and `/metrics`; and its clients.
//!
//! `cargo run --example axum_service -- serve` serves on port 3000; without `serve` it asks itself and ends.

mod support;

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dspy_live::{Error, Program, Runtime, StreamEvent};
use futures_util::{SinkExt, Stream, StreamExt};
use serde_json::{json, Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
struct App {
    runtime: Runtime,
    desk: Program,
}

/// An error as an HTTP reply. What the program itself raised is for the log, not for clients.
struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            Error::Input(_) | Error::Value(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Overloaded(_) | Error::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
            Error::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Lm(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(error_body(&self.0))).into_response()
    }
}

fn error_body(error: &Error) -> Value {
    let message = match error {
        Error::Program(_) | Error::Lm(_) => "the program failed".to_owned(),
        other => other.to_string(),
    };
    json!({"error": {"type": error.code(), "message": message}})
}

async fn predict(State(app): State<App>, Json(inputs): Json<Map<String, Value>>) -> Result<Json<Value>, Failed> {
    let prediction = app.desk.predict(inputs).timeout(Duration::from_secs(60)).await?;
    Ok(Json(Value::Object(prediction.outputs)))
}

/// When the client leaves, axum drops the stream, and with it the run.
async fn predict_stream(
    State(app): State<App>,
    Json(inputs): Json<Map<String, Value>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let events = app.desk.stream(inputs).start().await?.map(|event| {
        Ok(match event {
            Ok(event) => sse(event.name(), &event),
            Err(error) => sse("error", &error_body(&error)),
        })
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn sse(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

async fn websocket(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| talk(app, socket))
}

/// One question after the other; each is answered with its events and a line that says that it is done.
async fn talk(app: App, mut socket: WebSocket) {
    while let Some(Ok(Message::Text(text))) = socket.recv().await {
        let answered = match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(inputs) => answer(&app, &mut socket, inputs).await,
            Err(error) => send(&mut socket, &json!({"error": {"message": error.to_string()}})).await,
        };
        if answered.is_err() {
            return; // the client has gone; the stream is dropped, and the run with it
        }
    }
}

async fn answer(app: &App, socket: &mut WebSocket, inputs: Map<String, Value>) -> Result<(), axum::Error> {
    let mut stream = match app.desk.stream(inputs).start().await {
        Ok(stream) => stream,
        Err(error) => return send(socket, &error_body(&error)).await,
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => send(socket, &event).await?,
            Err(error) => send(socket, &error_body(&error)).await?,
        }
    }
    send(socket, &json!({"type": "done"})).await
}

async fn send(socket: &mut WebSocket, data: &impl serde::Serialize) -> Result<(), axum::Error> {
    socket.send(Message::Text(serde_json::to_string(data).unwrap_or_default().into())).await
}

async fn metrics(State(app): State<App>) -> String {
    app.runtime.metrics().prometheus()
}

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start_with(|builder| builder.max_in_flight(100)).await?;
    let desk = runtime.program("shop:desk").await?;
    let app = Router::new()
        .route("/predict", post(predict))
        .route("/predict/stream", post(predict_stream))
        .route("/ws", get(websocket))
        .route("/metrics", get(metrics))
        .with_state(App { runtime: runtime.clone(), desk });

    let stay = std::env::args().any(|argument| argument == "serve");
    let listener = TcpListener::bind(if stay { "127.0.0.1:3000" } else { "127.0.0.1:0" }).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let shutdown = async move { drop(stopped.await) };
        axum::serve(listener, app).with_graceful_shutdown(shutdown).await
    });
    if stay {
        tokio::signal::ctrl_c().await?;
    } else {
        clients(&address.to_string()).await?;
    }
    drop(stop);
    server.await??;
    println!("{:?}", runtime.shutdown(Duration::from_secs(10)).await);
    Ok(())
}

/// What a client of each route sees.
async fn clients(address: &str) -> support::Fallible {
    let message = json!({"message": "My order came broken."}).to_string();
    let reply = request(address, "POST", "/predict", &message).await?;
    assert!(reply.contains("200 OK") && reply.contains("\"reply\""), "{reply}");
    println!("/predict: {}", reply.lines().last().unwrap_or_default());

    let wrong = request(address, "POST", "/predict", r#"{"wrong": 1}"#).await?;
    assert!(wrong.contains("422") && wrong.contains("invalid_input"), "{wrong}");

    let events = request(address, "POST", "/predict/stream", &message).await?;
    let tokens = events.matches("event: token").count();
    assert!(tokens > 1 && events.contains("event: prediction"), "{events}");
    println!("/predict/stream: {tokens} tokens");

    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await?;
    socket.send(message.into()).await?;
    let mut text = String::new();
    while let Some(frame) = socket.next().await {
        match serde_json::from_str::<StreamEvent>(frame?.to_text()?)? {
            StreamEvent::Token(token) if token.field == "reply" => text.push_str(&token.text),
            StreamEvent::Prediction(prediction) => assert_eq!(prediction["reply"], text),
            event if event.name() == "done" => break,
            _ => {}
        }
    }
    println!("/ws: {text}");
    socket.close(None).await?;

    let metrics = request(address, "GET", "/metrics", "").await?;
    assert!(metrics.contains("dspy_live_runs_total{outcome=\"succeeded\"} 3"), "{metrics}");
    println!("/metrics: {}", metrics.lines().find(|line| line.contains("succeeded")).unwrap_or_default());
    Ok(())
}

async fn request(address: &str, method: &str, path: &str, body: &str) -> support::Fallible<String> {
    let mut socket = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).await?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await?;
    Ok(reply)
}
