//! Who may pass: every request goes through here first.

use super::auth::{Checked, Login};
use super::error::Fault;
use super::listen::Peer;
use super::routes::App;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use std::net::IpAddr;

/// No body of this API is larger.
pub(super) const MAX_BODY: usize = 256 * 1024;

/// The session's cookie.
pub(super) const COOKIE: &str = "derd_session";

/// What may be fetched without login: the health check, and what the login page is made of. None of it tells anything
/// of the house.
const OPEN: &[&str] = &["/healthz", "/login", "/login/basic", "/app.css", "/app.js", "/icon.svg"];

const SECURITY: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The middleware around all routes.
pub(super) async fn guard(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&app, peer, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for &(name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn admit(app: &App, peer: Peer, request: &Request) -> Result<(), Box<Response>> {
    let refuse = |fault: Fault| Box::new(fault.into_response());
    let headers = request.headers();
    if let Peer::Tcp { local, .. } = peer
        && !is_ours(request.uri(), headers, local.ip(), &app.names)
    {
        let why = "the Host of the request is not this gateway's: use its IP address, its host name or host name.local";
        return Err(refuse(Fault::new(StatusCode::MISDIRECTED_REQUEST, why)));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        change(peer, headers).map_err(refuse)?;
    }
    if let Peer::Tcp { remote, .. } = peer
        && let Some(login) = &app.login
        && !OPEN.contains(&request.uri().path())
    {
        return authenticate(login, remote.ip(), app, request);
    }
    Ok(())
}

/// What a request that changes something must bring.
fn change(peer: Peer, headers: &HeaderMap) -> Result<(), Fault> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let why = format!("the content type is `{kind}`: it must be application/json");
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if peer != Peer::Local
        && let Some(origin) = headers.get(header::ORIGIN)
    {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let ours = origin
            .to_str()
            .ok()
            .and_then(|o| o.strip_prefix("http://").or_else(|| o.strip_prefix("https://")))
            .is_some_and(|o| !host.is_empty() && o.eq_ignore_ascii_case(host));
        if !ours {
            return Err(Fault::new(StatusCode::FORBIDDEN, "the request comes from another web page (Origin)"));
        }
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|l| l > u64::try_from(MAX_BODY).unwrap_or(u64::MAX)) {
        return Err(too_large());
    }
    Ok(())
}

pub(super) fn too_large() -> Fault {
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB")
}

/// Is the name by which we were called one of ours. A page elsewhere can point a name of its own at our address (DNS
/// rebinding), but it cannot choose an address or our host name.
fn is_ours(uri: &Uri, headers: &HeaderMap, local: IpAddr, names: &[String]) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) else { return false };
    if uri.authority().is_some_and(|a| !a.as_str().eq_ignore_ascii_case(host)) {
        return false;
    }
    let name = if let Some(rest) = host.strip_prefix('[') {
        let Some((v6, port)) = rest.split_once(']') else { return false };
        if !(port.is_empty() || port.starts_with(':')) {
            return false;
        }
        v6
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    // A link-local address may carry its zone: `fe80::1%eth0`.
    if let Ok(ip) = name.split('%').next().unwrap_or_default().parse::<IpAddr>() {
        let ip = ip.to_canonical();
        return ip.is_loopback() || ip == local.to_canonical();
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    names.contains(&name)
}

/// The names that this machine goes by.
pub(super) fn own_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim().to_ascii_lowercase();
        let short = host.split('.').next().unwrap_or_default().to_owned();
        if !short.is_empty() {
            names.extend([format!("{short}.local"), short, host]);
        }
    }
    names
}

fn authenticate(login: &Login, peer: IpAddr, app: &App, request: &Request) -> Result<(), Box<Response>> {
    let now = app.clock.mono();
    if session_token(request.headers()).is_some_and(|token| login.is_session(&token, now)) {
        return Ok(());
    }
    if let Some(password) = basic_password(request.headers()) {
        return match check(login, &password, peer, BASIC, app) {
            Ok(()) => Ok(()),
            Err(fault) => Err(Box::new(fault.into_response())),
        };
    }
    let path = request.uri().path();
    if path == "/" {
        return Err(Box::new(Redirect::to("/login").into_response()));
    }
    // A browser must not ask by itself: the page has its own login. (Browsers send `sec-fetch-mode` over TLS only.)
    let agent = request.headers().get(header::USER_AGENT).and_then(|a| a.to_str().ok());
    let scheme = if agent.is_some_and(|a| a.starts_with("Mozilla/")) { PAGE } else { BASIC };
    let fault = Fault::new(StatusCode::UNAUTHORIZED, "log in first: the password is shown by `sudo derd password`");
    Err(Box::new(fault.header(header::WWW_AUTHENTICATE, scheme).into_response()))
}

/// What a 401 asks for: HTTP Basic makes a browser open its own question, the other leaves it to the page.
pub(super) const BASIC: &str = "Basic realm=\"derd\", charset=\"UTF-8\"";
pub(super) const PAGE: &str = "Page realm=\"derd\"";

/// Look at a password, with the brake. `scheme` is what a wrong one is told to use.
pub(super) fn check(login: &Login, password: &str, peer: IpAddr, scheme: &'static str, app: &App) -> Result<(), Fault> {
    match login.check(password, peer, app.clock.mono()) {
        Checked::Good => Ok(()),
        Checked::Wrong => {
            tracing::warn!(peer = %peer, "wrong password for the page");
            Err(Fault::new(StatusCode::UNAUTHORIZED, "the password is wrong: `sudo derd password` shows it")
                .header(header::WWW_AUTHENTICATE, scheme))
        }
        Checked::Braked => {
            Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords from this address: wait a minute")
                .header(header::RETRY_AFTER, "60"))
        }
        Checked::Unreadable(why) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, why)),
    }
}

/// The session's token, if the browser sent one.
pub(super) fn session_token(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('=').map(str::to_owned))
}

/// The password of HTTP Basic; any user name will do.
pub(super) fn basic_password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, code) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(base64(code.trim())?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}

/// RFC 4648 section 4; `None`: not such.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if digits.len() % 4 == 1 || digits.len() > 1024 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for c in digits.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (code, plain) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(code).unwrap(), plain.as_bytes(), "{code}");
        }
        for bad in ["Z", "Zm9v!", "Zm 9v"] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts() {
        let names = ["localhost".to_owned(), "pi.local".to_owned(), "pi".to_owned()];
        let local: IpAddr = "192.168.1.5".parse().unwrap();
        let ask = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_ours(&Uri::from_static("/"), &headers, local, &names)
        };
        for good in
            ["192.168.1.5", "192.168.1.5:8080", "localhost:1", "127.0.0.1", "[::1]:8080", "PI.local", "pi:80", "pi."]
        {
            assert!(ask(good), "{good}");
        }
        for bad in
            ["192.168.1.6", "evil.example", "pi.evil.example", "", "[::1", "localhost.evil.example", "192.168.1.5.evil"]
        {
            assert!(!ask(bad), "{bad}");
        }
        assert!(!is_ours(&Uri::from_static("/"), &HeaderMap::new(), local, &names), "no Host at all");
    }
}
