//! What the recordings do not show: other drivers, full pools, little memory, killed programs, a server that comes back.

use std::io::{self, Read};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::sandbox::fresh;
use crate::sandbox::state::{Class, Driver, Pool, Power};

struct Sandbox {
    server: Qubesd,
    dir: TempDir,
}

impl Sandbox {
    /// dom0 and a stopped template `tpl` whose volumes lie in a pool of this driver.
    fn new(driver: Driver) -> Self {
        let mut system = fresh::bare();
        system.pools[0] = Pool::new("main", driver);
        fresh::add_qube(&mut system, "tpl", Class::TemplateVM, "black");
        let dir = tempfile::tempdir().expect("a directory");
        Self { server: Qubesd::create(&dir.path().join("sandbox"), system).expect("a sandbox"), dir }
    }

    fn call(&self, method: &str, arg: &str, dest: &str, payload: &[u8]) -> String {
        let request = Request {
            source: "dom0".into(),
            method: method.into(),
            arg: arg.into(),
            dest: Destination::Name(dest.into()),
            payload: payload.into(),
        };
        match self.server.call(&request) {
            Reply::Body(body) => String::from_utf8(body).expect("text"),
            Reply::Events(_) => panic!("a stream"),
        }
    }

    fn import(&self, input: &mut dyn Read) -> io::Result<(i32, String)> {
        let call = ServiceCall {
            source: "dom0".into(),
            service: "admin.vm.volume.ImportWithSize".into(),
            arg: "root".into(),
            target: Destination::Name("tpl".into()),
        };
        let mut output = Vec::new();
        let status = self.server.service(&call, input, &mut output, &mut io::sink())?;
        Ok((status, String::from_utf8(output).expect("text")))
    }

    /// Imports `length` bytes of this one.
    fn fill(&self, byte: u8, length: usize) -> String {
        let size = format!("{length}\n");
        self.import(&mut size.as_bytes().chain(&vec![byte; length][..])).expect("an import").1
    }

    /// An import whose program is killed half way.
    fn killed_import(&self) {
        struct Killed;
        impl Read for Killed {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
        let mut input = (&b"9\nabc"[..]).chain(Killed);
        self.import(&mut input).expect_err("a program that was killed");
    }

    fn revisions(&self) -> Vec<String> {
        let reply = self.call("admin.vm.volume.ListSnapshots", "root", "tpl", b"");
        reply[2..].lines().map(str::to_owned).collect()
    }

    /// The volume's first byte and its length.
    fn holds(&self) -> (u8, u64) {
        let content = self.server.content("tpl", "root").expect("a volume");
        (content.beginning(1).first().copied().unwrap_or_default(), content.size)
    }

    fn power(&self, qube: &str) -> Power {
        self.server.system().qubes[qube].state
    }
}

const OK: &str = "0\0";

#[test]
fn file_reflink_and_lvm_go_back_to_what_was_there_before_an_import() {
    for driver in [Driver::FileReflink, Driver::LvmThin] {
        let sandbox = Sandbox::new(driver);
        assert_eq!(sandbox.fill(b'a', 1000), OK);
        let before = sandbox.revisions();
        assert_eq!(sandbox.fill(b'b', 2000), OK);
        let after = sandbox.revisions();
        assert_eq!(after.len(), 1, "{driver:?} keeps one");
        assert_ne!(after, before, "{driver:?}");
        assert_eq!(after[0].ends_with("-back"), driver == Driver::LvmThin);
        assert_eq!(sandbox.holds(), (b'b', 2000));
        assert_eq!(sandbox.call("admin.vm.volume.Revert", "root", "tpl", after[0].as_bytes()), OK);
        assert_eq!(sandbox.holds(), (b'a', 1000), "{driver:?}");
    }
}

#[test]
fn zfs_and_file_keep_nothing_of_what_an_import_replaced() {
    for driver in [Driver::Zfs, Driver::File] {
        let sandbox = Sandbox::new(driver);
        assert_eq!(sandbox.fill(b'a', 1000), OK);
        assert_eq!(sandbox.fill(b'b', 2000), OK);
        assert_eq!(sandbox.revisions(), [""; 0], "{driver:?}");
        assert_eq!(sandbox.holds(), (b'b', 2000));
    }
}

#[test]
fn what_a_killed_import_leaves_depends_on_the_driver() {
    for driver in [Driver::FileReflink, Driver::LvmThin, Driver::Zfs, Driver::File] {
        let sandbox = Sandbox::new(driver);
        assert_eq!(sandbox.fill(b'a', 1000), OK);
        sandbox.killed_import();
        let again = sandbox.fill(b'b', 1000);
        let start = sandbox.call("admin.vm.Start", "", "tpl", b"");
        let blocked = "2\0StoragePoolException\0\0Import operation in progress on ";
        match driver {
            Driver::FileReflink => assert_eq!((again.as_str(), start.as_str()), (OK, OK)),
            Driver::File => assert_eq!((again.as_str(), start.as_str()), ("", OK)),
            _ => {
                assert!(
                    again.starts_with(blocked) && start.starts_with(blocked),
                    "{driver:?}: {again} {start}"
                );
                assert_eq!(sandbox.power("tpl"), Power::Halted);
            }
        }
    }
}

#[test]
fn an_import_that_ends_early_leaves_the_old_content() {
    for driver in [Driver::FileReflink, Driver::LvmThin, Driver::Zfs, Driver::File] {
        let sandbox = Sandbox::new(driver);
        assert_eq!(sandbox.fill(b'a', 1000), OK);
        let (status, reply) = sandbox.import(&mut &b"9\nabc"[..]).expect("an import");
        assert_eq!(status, 0);
        assert!(reply.contains("not enough data (copied 3 bytes, expected 9 bytes)"), "{driver:?}: {reply}");
        assert_eq!(sandbox.holds(), (b'a', 1000), "{driver:?}");
        assert_eq!(sandbox.fill(b'b', 10), OK, "{driver:?}");
    }
}

#[test]
fn a_full_pool_ends_an_import_and_zeros_take_no_room() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    assert_eq!(sandbox.fill(b'a', 1000), OK);
    sandbox.server.change(|system| system.pools[0].limit = Some(1 << 20)).expect("a change");
    let reply = sandbox.fill(b'b', 2 << 20);
    assert_eq!(reply, "2\0QubesException\0\0Data import failed: error copying data\0");
    assert_eq!(sandbox.holds(), (b'a', 1000));
    assert_eq!(sandbox.fill(0, 8 << 20), OK);
    let details = sandbox.call("admin.pool.UsageDetails", "main", "dom0", b"");
    assert!(details.starts_with("0\0data_size=1048576\ndata_usage="), "{details}");
}

#[test]
fn a_large_image_is_mostly_holes() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    let size: u64 = 3 << 30;
    let head = format!("{size}\nx");
    let mut input = head.as_bytes().chain(io::repeat(0)).take(head.len() as u64 + size - 1);
    assert_eq!(sandbox.import(&mut input).expect("an import"), (0, OK.to_owned()));
    assert_eq!(sandbox.holds(), (b'x', size));
    let usage = sandbox.call("admin.vm.volume.Info", "root", "tpl", b"");
    let usage: u64 = usage
        .lines()
        .find_map(|line| line.strip_prefix("usage="))
        .expect("a usage")
        .parse()
        .expect("a number");
    assert!(usage < 1 << 20, "{usage}");
}

#[test]
fn a_volume_that_was_shortened_and_grows_again_has_zeros_at_its_end() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    assert_eq!(sandbox.fill(b'a', 1000), OK);
    assert_eq!(sandbox.call("admin.vm.Start", "", "tpl", b""), OK);
    assert_eq!(sandbox.call("admin.vm.Shutdown", "wait", "tpl", b""), OK);
    assert_eq!(sandbox.call("admin.vm.volume.Resize", "root", "tpl", b"1"), OK);
    assert_eq!(sandbox.call("admin.vm.volume.Resize", "root", "tpl", b"1000"), OK);
    assert_eq!(sandbox.server.content("tpl", "root").expect("a volume").beginning(3), b"a\0\0");
    let revision = sandbox.revisions().pop().expect("a revision");
    assert_eq!(sandbox.call("admin.vm.volume.Revert", "root", "tpl", revision.as_bytes()), OK);
    assert_eq!(sandbox.server.content("tpl", "root").expect("a volume").beginning(3), b"aaa");
}

#[test]
fn what_a_running_qube_has_outlives_a_clear_meanwhile() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    assert_eq!(sandbox.fill(b'a', 1000), OK);
    assert_eq!(sandbox.call("admin.vm.Start", "", "tpl", b""), OK);
    assert_eq!(sandbox.call("admin.vm.volume.Clear", "root", "tpl", b""), OK);
    assert_eq!(sandbox.holds(), (0, 1000));
    assert_eq!(sandbox.call("admin.vm.Kill", "", "tpl", b""), OK);
    assert_eq!(sandbox.holds(), (b'a', 1000));
}

#[test]
fn too_little_memory_keeps_a_qube_down() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    sandbox.server.change(|system| system.memory = Some(399)).expect("a change");
    let reply = sandbox.call("admin.vm.Start", "", "tpl", b"");
    assert_eq!(reply, "2\0QubesMemoryError\0\0Not enough memory to start domain 'tpl'\0");
    assert_eq!(sandbox.power("tpl"), Power::Halted);
}

#[test]
fn a_guest_that_crashes_is_gone_after_its_time() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    let image = b"#!guest crash=0.2\n";
    let input = [format!("{}\n", image.len()).as_bytes(), image].concat();
    assert_eq!(sandbox.import(&mut &input[..]).expect("an import").0, 0);
    assert_eq!(sandbox.call("admin.vm.Start", "", "tpl", b""), OK);
    assert_eq!(sandbox.power("tpl"), Power::Running);
    let deadline = Instant::now() + Duration::from_secs(10);
    while sandbox.power("tpl") != Power::Halted {
        assert!(Instant::now() < deadline, "still there");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_start_that_waits_keeps_nobody_out_and_a_kill_ends_it() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    let image = b"#!guest slow-boot=60\n";
    let input = [format!("{}\n", image.len()).as_bytes(), image].concat();
    assert_eq!(sandbox.import(&mut &input[..]).expect("an import").0, 0);
    assert_eq!(sandbox.call("admin.vm.feature.Set", "qrexec", "tpl", b"1"), OK);
    let (told, start) = channel();
    thread::scope(|scope| {
        scope.spawn(|| told.send(sandbox.call("admin.vm.Start", "", "tpl", b"")));
        while sandbox.power("tpl") != Power::Transient {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(sandbox.call("admin.vm.Kill", "", "tpl", b""), OK);
        let reply = start.recv_timeout(Duration::from_secs(10)).expect("an answer");
        assert!(reply.starts_with("2\0QubesVMError\0\0"), "{reply}");
    });
    assert_eq!(sandbox.power("tpl"), Power::Halted);
}

#[test]
fn a_guest_turns_features_on_once_and_the_first_qrexec_ends_the_installation() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    let listen = Request {
        source: "dom0".into(),
        method: "admin.Events".into(),
        arg: String::new(),
        dest: Destination::Name("dom0".into()),
        payload: Vec::new(),
    };
    let Reply::Events(events) = sandbox.server.call(&listen) else { panic!("no stream") };
    assert_eq!(sandbox.call("admin.vm.feature.Set", "gui", "tpl", b""), OK);
    let request = || {
        let call = ServiceCall {
            source: "tpl".into(),
            service: "qubes.FeaturesRequest".into(),
            arg: String::new(),
            target: Destination::Name("dom0".into()),
        };
        sandbox.server.service(&call, &mut io::empty(), &mut io::sink(), &mut io::sink()).expect("a service")
    };
    for (name, value) in [("qrexec", "1"), ("gui", "1"), ("os-eol", "2026-02-31"), ("supported-rpc.a", "1")] {
        sandbox.server.put_feature_request("tpl", name, value);
    }
    assert_eq!((request(), request()), (0, 0));
    let list = sandbox.call("admin.vm.feature.List", "", "tpl", b"");
    assert_eq!(list, "0\0gui\nsupported-rpc.a\nqrexec\n");
    assert_eq!(sandbox.call("admin.vm.feature.Get", "gui", "tpl", b""), OK);
    let mut installed = 0;
    while let Ok(Some(event)) = events.next(Duration::from_millis(20)) {
        installed += usize::from(event.windows(20).any(|part| part == b"template-postinstall"));
    }
    assert_eq!(installed, 1);
}

#[test]
fn the_state_outlives_the_server_and_two_servers_do_not_meet() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    assert_eq!(sandbox.fill(b'a', 1000), OK);
    assert_eq!(sandbox.call("admin.vm.feature.Set", "x", "tpl", b"1"), OK);
    let Sandbox { server, dir } = sandbox;
    let place = dir.path().join("sandbox");
    assert!(Qubesd::open(&place).is_err(), "two servers in one directory");
    let before = server.system();
    drop(server);
    let again = Sandbox { server: Qubesd::open(&place).expect("a sandbox"), dir };
    assert_eq!(again.server.system(), before);
    assert_eq!(again.holds(), (b'a', 1000));
}

#[test]
fn a_request_passes_up_to_64_kib() {
    let sandbox = Sandbox::new(Driver::FileReflink);
    let header = b"admin.vm.feature.Set+x dom0 name tpl\0";
    let request = |length: usize| [&header[..], &vec![b'v'; length - header.len()]].concat();
    let Reply::Body(body) = sandbox.server.answer_bytes(&request(MAX_REQUEST)) else { panic!("a stream") };
    assert_eq!(body, OK.as_bytes());
    let Reply::Body(body) = sandbox.server.answer_bytes(&request(MAX_REQUEST + 1)) else {
        panic!("a stream")
    };
    assert_eq!(body, b"");
}
