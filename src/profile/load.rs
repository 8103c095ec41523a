//! loader
use super::Profile;

pub(super) fn profile(_name: &str, _text: &str) -> Result<Profile, Vec<(String, String)>> {
    Err(Vec::new())
}
