//! Mosquitto, and its own clients as peers that are not ours.

use crate::wait::{free_port, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the broker is set up.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// An ACL file's text; none: everybody may do everything.
    pub acl: Option<String>,
    /// TLS with client certificates: a CA, the server's pair and the client's pair are made in the folder.
    pub tls: bool,
}

/// A real broker on a port of its own.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    folder: PathBuf,
    tls: bool,
    child: Option<Child>,
}

impl Broker {
    /// Start one.
    ///
    /// # Panics
    /// When Mosquitto is missing or does not come up.
    #[must_use]
    pub fn start(folder: &Path, options: &BrokerOptions) -> Self {
        let port = free_port();
        let folder = folder.join("broker");
        std::fs::create_dir_all(&folder).unwrap();
        let mut config =
            format!("listener {port} 127.0.0.1\npersistence false\nlog_type error\nlog_type warning\nuser root\n");
        if let Some(acl) = &options.acl {
            std::fs::write(folder.join("acl"), acl).unwrap();
            config += &format!("acl_file {}\n", folder.join("acl").display());
        }
        if options.tls {
            certificates(&folder);
            for (key, file) in [("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")] {
                config += &format!("{key} {}\n", folder.join(file).display());
            }
            config += "require_certificate true\nuse_identity_as_username true\n";
        } else {
            config += "allow_anonymous true\n";
        }
        std::fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { port, folder, tls: options.tls, child: None };
        broker.resume();
        broker
    }

    /// Start it again after [`Broker::stop`], on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn resume(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|p| Path::new(p).is_file());
        let child = Command::new(program.expect("mosquitto is not installed: hil-tests/run installs it"))
            .arg("-c")
            .arg(self.folder.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("the broker listens", Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// End it, as a crash would.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Send it a signal by name: `HUP` reads the ACL again, `STOP` and `CONT` make it hang for a while.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the broker runs").id();
        assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap().success());
    }

    /// Change its rules while it runs.
    ///
    /// # Panics
    /// When it was not started with rules.
    pub fn set_acl(&self, text: &str) {
        let file = self.folder.join("acl");
        assert!(file.is_file(), "start it with rules");
        std::fs::write(file, text).unwrap();
        self.signal("HUP");
    }

    /// Where it is, as derd's `url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt{}://localhost:{}", if self.tls { "s" } else { "" }, self.port)
    }

    /// Its folder, with `ca.pem`, `client.pem` and `client.key` when it has TLS.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn client(&self, program: &str) -> Command {
        // Line by line, also into a pipe.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program]);
        command.args(["-V", "5", "-h", "localhost", "-p", &self.port.to_string()]);
        if self.tls {
            command.arg("--cafile").arg(self.folder.join("ca.pem"));
            command.arg("--cert").arg(self.folder.join("observer.pem"));
            command.arg("--key").arg(self.folder.join("observer.key"));
        }
        command
    }

    /// Listen to a topic filter with mosquitto_sub, QoS 1. Returns when the subscription stands.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        let mut child = self
            .client("mosquitto_sub")
            .args(["-q", "1", "-t", filter, "-F", "%j", "-d"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let ready = Arc::new(Mutex::new(false));
        let out = child.stdout.take().unwrap();
        let (sink, flag) = (Arc::clone(&messages), Arc::clone(&ready));
        drop(std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.contains("received SUBACK") || line.contains("Subscribed") {
                    *flag.lock().unwrap() = true;
                }
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                let payload = text("payload");
                let message = Message {
                    topic: text("topic"),
                    retained: value["retain"] == 1,
                    json: serde_json::from_str(&payload).unwrap_or(Value::Null),
                    properties: value["properties"].clone(),
                    payload,
                };
                sink.lock().unwrap().push(message);
            }
        }));
        wait_for("the subscription stands", Duration::from_secs(10), || ready.lock().unwrap().then_some(()));
        Subscriber { child, messages }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Publish with mosquitto_pub, QoS 1; `more` are further arguments. Was it sent.
///
/// # Panics
/// When mosquitto_pub is missing.
#[must_use]
pub fn publish(broker: &Broker, topic: &str, payload: &str, more: &[&str]) -> bool {
    broker
        .client("mosquitto_pub")
        .args(["-q", "1", "-t", topic, "-m", payload])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// One message as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Was it a retained one.
    pub retained: bool,
    /// Its payload.
    pub payload: String,
    /// Its payload as JSON, else null.
    pub json: Value,
    /// Its MQTT 5 properties, as mosquitto_sub names them.
    pub properties: Value,
}

/// A listener.
#[derive(Debug)]
pub struct Subscriber {
    child: Child,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Subscriber {
    /// All messages so far.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn all(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// Wait for a message that fits.
    ///
    /// # Panics
    /// When none comes in time: with what did come on that topic.
    #[must_use]
    pub fn wait(&self, what: &str, deadline: Duration, fits: impl Fn(&Message) -> bool) -> Message {
        wait_for(what, deadline, || self.messages.lock().unwrap().iter().find(|m| fits(m)).cloned())
    }

    /// Wait for a command's result in a state.
    ///
    /// # Panics
    /// When it does not come in time: with the states that did.
    #[must_use]
    pub fn wait_result(&self, id: &str, state: &str, deadline: Duration) -> Value {
        let start = std::time::Instant::now();
        loop {
            let seen: Vec<Value> = self
                .all()
                .into_iter()
                .filter(|m| m.topic.ends_with("command/result") && m.json["id"] == id)
                .map(|m| m.json)
                .collect();
            if let Some(found) = seen.iter().find(|r| r["state"] == state) {
                return found.clone();
            }
            assert!(start.elapsed() < deadline, "no `{state}` for {id} in {deadline:?}; came: {seen:#?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A CA, the server's pair for localhost, the gateway's pair and an observer's.
fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "derd test CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for (name, common, hosts) in [
        ("server", "localhost", vec!["localhost".to_owned()]),
        ("client", "gw-1", vec![]),
        ("observer", "observer", vec![]),
    ] {
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
