//! Connections to a server, with TLS where the feature `tls` is on.

use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;

use crate::error::{Error, Result};

/// How long a server has to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the operating system asks whether the other side is still there.
const SILENCE: Duration = Duration::from_secs(15);

#[cfg(feature = "tls")]
pub(super) type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
pub(super) type Connector = HttpConnector;

/// What connects to the server at `uri`; `roots` are certificates to trust beside the system's, in PEM.
pub(super) fn connector(uri: &Uri, roots: &[Vec<u8>]) -> Result<Connector> {
    let mut plain = HttpConnector::new();
    plain.set_nodelay(true);
    plain.set_connect_timeout(Some(CONNECT));
    // A peer that is gone without a word is noticed after SILENCE and three probes.
    plain.set_keepalive(Some(SILENCE));
    plain.set_keepalive_interval(Some(SILENCE / 3));
    plain.set_keepalive_retries(Some(3));
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => finish(plain, uri.scheme_str() == Some("https"), roots),
        _ => Err(Error::Setup(format!("{uri} must be http://HOST:PORT or https://HOST:PORT"))),
    }
}

#[cfg(not(feature = "tls"))]
fn finish(plain: HttpConnector, secure: bool, _: &[Vec<u8>]) -> Result<Connector> {
    if secure {
        return Err(Error::Setup("an address with https needs the crate's feature `tls`".into()));
    }
    Ok(plain)
}

#[cfg(feature = "tls")]
fn finish(mut plain: HttpConnector, secure: bool, roots: &[Vec<u8>]) -> Result<Connector> {
    plain.enforce_http(false);
    let trusted = if secure { trusted(roots)? } else { rustls::RootCertStore::empty() };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_or_http().enable_http1().wrap_connector(plain))
}

/// The system's certificates, of which some may be unreadable, and those given, which may not.
#[cfg(feature = "tls")]
fn trusted(roots: &[Vec<u8>]) -> Result<rustls::RootCertStore> {
    use rustls::pki_types::{pem::PemObject, CertificateDer};

    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for pem in roots {
        let bad = |error: &dyn std::fmt::Display| Error::Setup(format!("a root certificate can't be read: {error}"));
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            store.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
        }
        if store.len() == before {
            return Err(bad(&"there is none in it; it must be PEM"));
        }
    }
    if store.is_empty() {
        return Err(Error::Setup("this system has no root certificates: give root_certificate".into()));
    }
    Ok(store)
}
