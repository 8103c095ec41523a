//! Files that are not as they should be.

use super::*;
use std::os::unix::fs::PermissionsExt;

async fn filled(folder: &Path) -> StoreSettings {
    let rig = Rig::open(settings(folder, &["mqtt"]));
    for seq in 0..300 {
        rig.offer("pv", seq, 1.0);
        if seq % 10 == 0 {
            rig.store.flush().await.unwrap();
        }
    }
    rig.store.save_plan("p".parse().unwrap(), "{}".into(), UplinkName::local(), at(0)).await.unwrap();
    rig.stop().await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens, says whether a damaged file was set aside, and works.
async fn opens(settings: StoreSettings, what: &str) -> bool {
    let folder = settings.path.parent().unwrap().to_owned();
    let rig = Rig::open(settings);
    let events = rig.store.events(10).await.unwrap();
    let told = events.iter().any(|(_, e)| e.code == "store_damaged");
    let aside = names(&folder).iter().any(|n| n.starts_with("derd.db.damaged-"));
    assert_eq!(told, aside, "{what}: {events:?}");
    if told {
        let outbox = rig.store.outbox(uplink("mqtt"), 10).await.unwrap();
        assert!(outbox.iter().any(|i| matches!(&i.notice.body, NoticeBody::Event(e) if e.code == "store_damaged")));
    }
    let before = rig.rows("mqtt").await.len();
    rig.offer("pv", 1000, 1.0);
    rig.store.flush().await.unwrap();
    let rig = rig.reopen().await;
    assert_eq!(rig.rows("mqtt").await.len(), before + 1, "{what}");
    rig.stop().await;
    told
}

#[tokio::test]
async fn known_corruptions_all_open() {
    type Harm = fn(&Path);
    let cases: [(&str, bool, Harm); 9] = [
        ("nothing", false, |_| {}),
        ("zero length", false, |p| std::fs::write(p, b"").unwrap()),
        ("truncated", true, |p| {
            let all = std::fs::read(p).unwrap();
            std::fs::write(p, &all[..all.len() / 2 + 100]).unwrap();
        }),
        ("cut to its header", true, |p| {
            let all = std::fs::read(p).unwrap();
            std::fs::write(p, &all[..100]).unwrap();
        }),
        ("garbage header", true, |p| {
            let mut all = std::fs::read(p).unwrap();
            all[..100].fill(0x5a);
            std::fs::write(p, all).unwrap();
        }),
        ("not a database", true, |p| std::fs::write(p, "no database at all\n".repeat(300)).unwrap()),
        ("zeros in the middle", true, |p| {
            let mut all = std::fs::read(p).unwrap();
            let (from, to) = (all.len() / 4, all.len() * 3 / 4);
            all[from..to].fill(0);
            std::fs::write(p, all).unwrap();
        }),
        ("a garbage log", false, |p| std::fs::write(file::with_suffix(p, "-wal"), [0xa5; 5000]).unwrap()),
        ("a newer version", true, |p| {
            // Where SQLite keeps user_version.
            let mut all = std::fs::read(p).unwrap();
            all[60..64].copy_from_slice(&99_u32.to_be_bytes());
            std::fs::write(p, all).unwrap();
        }),
    ];
    for (what, is_damage, harm) in cases {
        let folder = tempfile::tempdir().unwrap();
        let settings = filled(folder.path()).await;
        harm(&settings.path);
        assert_eq!(opens(settings, what).await, is_damage, "{what}");
    }
}

#[tokio::test]
async fn what_must_not_be_forgotten_is_saved_from_a_damaged_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = filled(folder.path()).await;
    let all = std::fs::read(&settings.path).unwrap();
    // The end of the file holds telemetry.
    std::fs::write(&settings.path, &all[..all.len() - 1024]).unwrap();
    let rig = Rig::open(settings);
    assert_eq!(rig.store.plans().await.unwrap().len(), 1);
    assert_eq!(rig.rows("mqtt").await, [0_u64; 0]);
    rig.stop().await;
}

#[tokio::test]
async fn a_log_cut_short_keeps_what_was_committed_before() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    rig.offer("pv", 0, 1.0);
    rig.store.flush().await.unwrap();
    rig.offer("pv", 1, 1.0);
    rig.store.flush().await.unwrap();
    let log = file::with_suffix(&rig.settings.path, "-wal");
    let to = folder.path().join("cut");
    std::fs::create_dir(&to).unwrap();
    copy(&rig.settings.path, &to.join("derd.db"));
    rig.stop().await;
    assert!(!log.exists(), "a good end leaves one file");
    let log = to.join("derd.db-wal");
    let all = std::fs::read(&log).unwrap();
    std::fs::write(&log, &all[..all.len() - 500]).unwrap();
    let rig = Rig::open(settings(&to, &["mqtt"]));
    // The cursor began at the end before the first sample.
    assert_eq!(rig.rows("mqtt").await, [1]);
    rig.stop().await;
}

#[tokio::test]
async fn the_file_is_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("derd.db"), 0o600);
    rig.store.set_meta("k", "v").await.unwrap();
    assert_eq!(mode("derd.db-wal"), 0o600);
    assert_eq!(names(folder.path()), ["derd.db", "derd.db-wal"], "no shared memory");
    rig.stop().await;
}

#[test]
fn a_missing_folder_is_named() {
    let error = open(StoreSettings::new("/nowhere/derd.db"), Clock::manual(at(0))).unwrap_err();
    assert_eq!(error.to_string(), "opening the database: /nowhere/derd.db: No such file or directory (os error 2)");
}

#[tokio::test]
async fn a_new_file_has_the_settings_that_cannot_be_changed_later() {
    let folder = tempfile::tempdir().unwrap();
    let opened = file::open(&folder.path().join("derd.db"), at(0)).unwrap();
    let pragma = |name: &str| -> String {
        let value: rusqlite::types::Value =
            opened.conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap();
        match value {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(n) => n.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let found = ["journal_mode", "auto_vacuum", "synchronous", "page_size", "user_version", "locking_mode"].map(pragma);
    assert_eq!(found, ["wal", "2", "2", "1024", "2", "exclusive"]);
}

#[tokio::test]
async fn a_second_daemon_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let error = open(rig.settings.clone(), Clock::manual(at(0))).unwrap_err();
    assert!(error.to_string().ends_with("derd.db: another process has it open"), "{error}");
    rig.offer("pv", 0, 1.0);
    rig.store.flush().await.unwrap();
    rig.stop().await;
}
