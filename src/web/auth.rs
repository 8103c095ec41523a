//! The login: one password in a file, sessions in memory, and a brake on guessing.

use crate::model::Mono;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// No 0 O 1 l I: it is read off a screen and typed on a phone. 20 of 54 letters are 115 bits.
const ALPHABET: &[u8; 54] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwx";
const PASSWORD_LENGTH: usize = 20;

/// Somebody who logs in stays so for a month.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A household's phones and laptops; the oldest session gives way.
const MAX_SESSIONS: usize = 64;

/// Wrong passwords that one address may send within a minute.
const MAX_FAILURES: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Addresses kept; when full, the one whose window began first gives way.
const MAX_PEERS: usize = 256;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read or written.
    #[error("{attempt} the password file {}: {reason}", path.display())]
    File {
        /// `reading`, `writing`, ...
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// The file holds no password.
    #[error("the password file {} is empty: remove it to get a new one", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("making a password: the system gives no random numbers: {0}")]
    Random(String),
}

/// The login's password; made, with mode 0600, when the file is not there.
///
/// # Errors
/// [`PasswordError`]
pub fn ensure_password(path: &Path) -> Result<String, PasswordError> {
    match std::fs::metadata(path) {
        Ok(meta) => {
            if meta.permissions().mode() & 0o077 != 0 {
                tracing::warn!("the password file {} was open to others: its mode is now 0600", path.display());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                    .map_err(fault("setting the mode of", path))?;
            }
            read_password(path)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => renew_password(path),
        Err(e) => Err(fault("reading", path)(e)),
    }
}

/// A new password in place of the old one. Takes effect at once and ends all sessions.
///
/// # Errors
/// [`PasswordError`]
pub fn renew_password(path: &Path) -> Result<String, PasswordError> {
    let password = random_password()?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(fault("replacing", path)(e)),
    }
    // The owner of a file that is replaced keeps it: `derd password --new` is run by root.
    let owner = std::fs::metadata(path).ok();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fault("writing", path))?;
    writeln!(file, "{password}").and_then(|()| file.sync_all()).map_err(fault("writing", path))?;
    if let Some(meta) = owner {
        use std::os::unix::fs::MetadataExt as _;
        std::os::unix::fs::chown(&temporary, Some(meta.uid()), Some(meta.gid())).map_err(fault("writing", path))?;
    }
    std::fs::rename(&temporary, path).map_err(fault("writing", path))?;
    Ok(password)
}

fn read_password(path: &Path) -> Result<String, PasswordError> {
    let text = std::fs::read_to_string(path).map_err(fault("reading", path))?;
    let password = text.trim();
    if password.is_empty() {
        return Err(PasswordError::Empty { path: path.to_owned() });
    }
    Ok(password.to_owned())
}

fn fault(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PasswordError {
    move |reason| PasswordError::File { attempt, path: path.to_owned(), reason }
}

fn random_password() -> Result<String, PasswordError> {
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    let mut bytes = [0_u8; 64];
    while password.len() < PASSWORD_LENGTH {
        getrandom::fill(&mut bytes).map_err(|e| PasswordError::Random(e.to_string()))?;
        // Only bytes below the largest multiple of 54 are used: no letter is more likely than another.
        let letters =
            bytes.iter().filter(|b| **b < 216).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
        password.extend(letters.take(PASSWORD_LENGTH - password.len()));
    }
    Ok(password)
}

/// 128 random bits as text; `None`: the system gives none.
pub(super) fn random_token() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// What came of a password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Good,
    Wrong,
    /// Too many wrong ones from this address: not even looked at.
    Braked,
    /// The password file cannot be read: nobody gets in.
    Unreadable(String),
}

/// The login of a running server.
#[derive(Debug)]
pub(super) struct Login {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The password that the sessions were made with.
    password: String,
    /// Token and end.
    sessions: Vec<(String, Mono)>,
    failures: HashMap<IpAddr, (u32, Mono)>,
}

impl Login {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, state: Mutex::default() }
    }

    /// Is this the password. Each wrong one counts against its address.
    pub(super) fn check(&self, password: &str, peer: IpAddr, now: Mono) -> Checked {
        let peer = network(peer);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, since)) = state.failures.get(&peer).copied() {
            if now.since(since) >= FAILURE_WINDOW {
                state.failures.remove(&peer);
            } else if count >= MAX_FAILURES {
                return Checked::Braked;
            }
        }
        if let Err(e) = self.refresh(&mut state) {
            return Checked::Unreadable(e.to_string());
        }
        if bool::from(state.password.as_bytes().ct_eq(password.as_bytes())) {
            state.failures.remove(&peer);
            return Checked::Good;
        }
        if state.failures.len() >= MAX_PEERS && !state.failures.contains_key(&peer) {
            let oldest = state.failures.iter().min_by_key(|(_, (_, since))| *since).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                state.failures.remove(&oldest);
            }
        }
        state.failures.entry(peer).or_insert((0, now)).0 += 1;
        Checked::Wrong
    }

    /// A new session; `None`: no random numbers.
    pub(super) fn open_session(&self, now: Mono) -> Option<String> {
        let token = random_token()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sessions.retain(|(_, end)| *end > now);
        if state.sessions.len() >= MAX_SESSIONS {
            state.sessions.remove(0);
        }
        state.sessions.push((token.clone(), now.plus(SESSION_LIFE)));
        Some(token)
    }

    /// Is this the token of a living session.
    pub(super) fn is_session(&self, token: &str, now: Mono) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.refresh(&mut state).is_err() {
            return false;
        }
        state.sessions.iter().any(|(t, end)| *end > now && bool::from(t.as_bytes().ct_eq(token.as_bytes())))
    }

    pub(super) fn close_session(&self, token: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sessions.retain(|(t, _)| t != token);
    }

    /// The file is read each time (it lies in the page cache), so that a renewed password counts at once.
    fn refresh(&self, state: &mut State) -> Result<(), PasswordError> {
        let password = read_password(&self.file)?;
        if password != state.password {
            state.sessions.clear();
            state.password = password;
        }
        Ok(())
    }
}

/// An IPv6 guesser has 2^64 addresses of one network: they count as one.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 9));

    #[test]
    fn the_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.password");
        let password = ensure_password(&path).unwrap();
        assert_eq!(password.len(), 20);
        assert!(password.bytes().all(|b| ALPHABET.contains(&b)));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ensure_password(&path).unwrap(), password);
        assert_ne!(renew_password(&path).unwrap(), password);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        ensure_password(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(ensure_password(&path), Err(PasswordError::Empty { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left behind");
    }

    #[test]
    fn ten_wrong_ones_a_minute_close_the_door_for_that_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let password = ensure_password(&path).unwrap();
        let login = Login::new(path);
        let at = Mono::from_ms;
        for _ in 0..10 {
            assert_eq!(login.check("guess", PEER, at(0)), Checked::Wrong);
        }
        assert_eq!(login.check(&password, PEER, at(1)), Checked::Braked);
        let other: IpAddr = "192.168.1.10".parse().unwrap();
        assert_eq!(login.check(&password, other, at(1)), Checked::Good);
        assert_eq!(login.check(&password, PEER, at(60_000)), Checked::Good);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let net = |t: &str| network(t.parse().unwrap());
        assert_eq!(net("2001:db8::1"), net("2001:db8::ffff:1"));
        assert_ne!(net("2001:db8::1"), net("2001:db8:0:1::1"));
        assert_eq!(net("::ffff:10.0.0.1"), net("10.0.0.1"));
    }

    #[test]
    fn sessions_end_by_time_by_logout_and_by_a_new_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        ensure_password(&path).unwrap();
        let login = Login::new(path.clone());
        let start = Mono::from_ms(0);
        assert!(!login.is_session("", start));
        let (a, b) = (login.open_session(start).unwrap(), login.open_session(start).unwrap());
        assert!(login.is_session(&a, start));
        login.close_session(&a);
        assert!(!login.is_session(&a, start) && login.is_session(&b, start));
        assert!(!login.is_session(&b, start.plus(SESSION_LIFE)));
        renew_password(&path).unwrap();
        assert!(!login.is_session(&b, start));
        for _ in 0..100 {
            login.open_session(start).unwrap();
        }
        assert_eq!(login.state.lock().unwrap().sessions.len(), MAX_SESSIONS);
    }
}
