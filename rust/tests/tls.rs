//! A server behind TLS: a real one, behind a proxy that ends the TLS as a load balancer does.
#![cfg(feature = "tls")]

mod common;

use std::sync::Arc;

use common::Server;
use dspy_live::{Error, Runtime};
use futures_util::StreamExt;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{crypto::ring, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// The address of a proxy to `server`, and the certificate that it shows.
async fn proxy_to(server: &Server) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let to = server.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (url, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_go_over_tls_where_the_certificate_is_trusted() {
    let server = Server::start(&["serve", "question -> answer", "--sim", "--port", "0", "--no-ledger"]);
    let (url, pem) = proxy_to(&server).await;

    let runtime = Runtime::remote(&url).root_certificate(pem).start().await.unwrap();
    let program = runtime.program("question -> answer").await.unwrap();
    let one = program.predict(json!({"question": "Why?"})).await.unwrap();
    assert!(!one["answer"].as_str().unwrap().is_empty());
    let mut stream = program.stream(json!({"question": "And how?"})).start().await.unwrap();
    let (mut text, mut result) = (String::new(), None);
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        if let Some(token) = event.token() {
            text.push_str(&token.text);
        }
        if let dspy_live::StreamEvent::Prediction(one) = event {
            result = Some(one);
        }
    }
    assert_eq!(result.unwrap()["answer"].as_str().unwrap(), text);

    let error = Runtime::remote(&url).start().await.unwrap_err();
    assert!(matches!(&error, Error::Connection(why) if why.contains("certificate")), "{error}");
    let elsewhere = url.replace("localhost", "127.0.0.1");
    let (_, other) = proxy_to(&server).await;
    for (address, pem) in [(&elsewhere, None), (&url, Some(other))] {
        let mut builder = Runtime::remote(address);
        if let Some(pem) = pem {
            builder = builder.root_certificate(pem);
        }
        assert!(matches!(builder.start().await, Err(Error::Connection(_))), "{address}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_none_is_told() {
    for pem in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = Runtime::remote("https://localhost:1").root_certificate(pem).start().await.unwrap_err();
        assert!(matches!(&error, Error::Setup(why) if why.contains("root certificate")), "{error}");
    }
}
