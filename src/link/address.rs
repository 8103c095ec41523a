//! What a `link = "..."` names.

use std::fmt;
use std::time::Duration;

/// Why a link's text is no good, with what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link `{link}`: {reason}")]
pub struct LinkUrlError {
    /// The link as written, without any password.
    pub link: String,
    /// What is wrong with it and what is right.
    pub reason: String,
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parity {
    /// None.
    None,
    /// Even: what the Modbus standard asks for.
    Even,
    /// Odd.
    Odd,
}

/// One physical endpoint, checked. Its text ([`fmt::Display`]) is the same for two links that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Modbus TCP.
    Tcp {
        /// Name or address; IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// Modbus RTU frames over a TCP connection (serial servers).
    RtuOverTcp {
        /// Name or address; IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// Modbus RTU on a serial port.
    Serial {
        /// The device file.
        path: String,
        /// Bits per second.
        baud: u32,
        /// Parity.
        parity: Parity,
        /// Stop bits, 1 or 2.
        stop: u8,
    },
    /// HTTP or HTTPS; the text is `http://host:port` without a slash at the end.
    Http {
        /// With TLS.
        tls: bool,
        /// Name or address; IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Address {
    /// From the text of the configuration: `tcp://host[:502]`, `rtu+tcp://host:port`,
    /// `rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1`, `http://host[:80]`, `https://host[:443]`.
    ///
    /// # Errors
    /// [`LinkUrlError`]: what is wrong, and what is right.
    pub fn parse(text: &str) -> Result<Self, LinkUrlError> {
        let url = url::Url::parse(text).map_err(|e| fault(text, format!("{e}; {FORMS}")))?;
        let shown = {
            let mut shown = url.clone();
            // A link with a path only has no place for a password: then there is none to hide.
            let _nothing_to_hide = shown.set_password(None).is_err();
            shown.to_string()
        };
        let shown = if url.password().is_some() { shown.as_str() } else { text };
        let fail = |reason: String| Err(fault(shown, reason));
        if !url.username().is_empty() || url.password().is_some() {
            return fail("a link carries no user name and no password".into());
        }
        if url.fragment().is_some() {
            return fail("a link has no `#` part".into());
        }
        match url.scheme() {
            "tcp" | "rtu+tcp" | "http" | "https" => {
                let Some(host) = url.host_str().filter(|h| !h.is_empty()) else {
                    return fail(format!("no host; {FORMS}"));
                };
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                if !matches!(url.path(), "" | "/") || url.query().is_some() {
                    return fail(format!("nothing comes after host and port; {FORMS}"));
                }
                let port = url.port_or_known_default();
                if port == Some(0) {
                    return fail("port 0 is not a port".into());
                }
                match (url.scheme(), port) {
                    ("tcp", port) => Ok(Self::Tcp { host, port: port.unwrap_or(502) }),
                    ("rtu+tcp", Some(port)) => Ok(Self::RtuOverTcp { host, port }),
                    ("rtu+tcp", None) => fail("no port; write rtu+tcp://host:port".into()),
                    (scheme, port) => {
                        let tls = scheme == "https";
                        Ok(Self::Http { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }) })
                    }
                }
            }
            "rtu" => Self::parse_serial(&url).map_err(|reason| fault(shown, reason)),
            other => fail(format!("`{other}` is not a kind of link; {FORMS}")),
        }
    }

    fn parse_serial(url: &url::Url) -> Result<Self, String> {
        const FORM: &str = "write rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1 (three slashes)";
        if url.host_str().is_some_and(|h| !h.is_empty()) || url.path().len() < 2 {
            return Err(format!("no device file; {FORM}"));
        }
        let (mut baud, mut parity, mut stop) = (9600, Parity::None, 1);
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "baud" => {
                    baud = value
                        .parse()
                        .ok()
                        .filter(|b| (300..=1_000_000).contains(b))
                        .ok_or_else(|| format!("baud `{value}` is not a speed such as 9600 or 19200"))?;
                }
                "parity" => {
                    parity = match value.as_ref() {
                        "none" => Parity::None,
                        "even" => Parity::Even,
                        "odd" => Parity::Odd,
                        _ => return Err(format!("parity `{value}` is not none, even or odd")),
                    }
                }
                "stop" => {
                    stop = match value.as_ref() {
                        "1" => 1,
                        "2" => 2,
                        _ => return Err(format!("stop `{value}` is not 1 or 2")),
                    }
                }
                other => return Err(format!("`{other}` is not a setting of a serial line; {FORM}")),
            }
        }
        Ok(Self::Serial { path: url.path().to_owned(), baud, parity, stop })
    }

    /// The shortest silence that separates two RTU frames on this line: 3.5 characters, 1.75 ms at least (Modbus over
    /// Serial Line, 2.5.1.1). Zero where frames have their own length.
    #[must_use]
    pub fn frame_gap(&self) -> Duration {
        match self {
            Self::Serial { baud, .. } => {
                Duration::from_micros(38_500_000 / u64::from(*baud).max(1)).max(Duration::from_micros(1750))
            }
            _ => Duration::ZERO,
        }
    }
}

const FORMS: &str = "write tcp://host:502, rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1, rtu+tcp://host:port, \
                     http://host or https://host";

fn fault(link: &str, reason: String) -> LinkUrlError {
    LinkUrlError { link: link.to_owned(), reason }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::RtuOverTcp { host, port } => ("rtu+tcp", host, port),
            Self::Http { tls, host, port } => (if *tls { "https" } else { "http" }, host, port),
            Self::Serial { path, baud, parity, stop } => {
                let parity = match parity {
                    Parity::None => "none",
                    Parity::Even => "even",
                    Parity::Odd => "odd",
                };
                return write!(f, "rtu://{path}?baud={baud}&parity={parity}&stop={stop}");
            }
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_links_and_their_one_text() {
        for (text, canonical) in [
            ("tcp://192.168.1.20:502", "tcp://192.168.1.20:502"),
            ("tcp://192.168.1.20", "tcp://192.168.1.20:502"),
            ("tcp://[fe80::1]:1502", "tcp://[fe80::1]:1502"),
            ("tcp://inverter.lan/", "tcp://inverter.lan:502"),
            ("rtu+tcp://10.0.0.9:4196", "rtu+tcp://10.0.0.9:4196"),
            ("rtu:///dev/ttyUSB0", "rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1"),
            ("rtu:///dev/ttyUSB0?baud=19200&parity=even", "rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=1"),
            (
                "rtu:///dev/serial/by-id/usb-X?stop=2&parity=odd",
                "rtu:///dev/serial/by-id/usb-X?baud=9600&parity=odd&stop=2",
            ),
            ("http://wallbox", "http://wallbox:80"),
            ("http://10.0.0.7:8080/", "http://10.0.0.7:8080"),
            ("https://envoy.local", "https://envoy.local:443"),
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn bad_links_say_what_is_right() {
        for (text, expected) in [
            ("192.168.1.20:502", "tcp://host:502"),
            ("modbus://host", "`modbus` is not a kind of link"),
            ("tcp://", "no host"),
            ("tcp://host:0", "port 0"),
            ("tcp://host:99999", "invalid port"),
            ("tcp://host:502/3", "nothing comes after"),
            ("rtu+tcp://host", "no port"),
            ("rtu://dev/ttyUSB0", "three slashes"),
            ("rtu:///dev/ttyUSB0?baud=fast", "baud `fast`"),
            ("rtu:///dev/ttyUSB0?parity=mark", "parity `mark`"),
            ("rtu:///dev/ttyUSB0?stop=3", "stop `3`"),
            ("rtu:///dev/ttyUSB0?speed=9600", "`speed` is not a setting"),
            ("http://host/api", "nothing comes after"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Address::parse("http://me:secret@host").unwrap_err().to_string();
        assert!(error.contains("no password") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_slow_line_needs_a_longer_silence() {
        let gap = |t: &str| Address::parse(t).unwrap().frame_gap();
        assert_eq!(gap("rtu:///dev/x?baud=9600"), Duration::from_micros(4010));
        assert_eq!(gap("rtu:///dev/x?baud=115200"), Duration::from_micros(1750));
        assert_eq!(gap("tcp://h"), Duration::ZERO);
    }
}
