//! Threads without rights, for code that takes hostile bytes apart.
//!
//! Everything that touches a package before the verdict, and everything that decompresses and parses it after, runs
//! in a thread that can compute, allocate memory, and read and write descriptors that are open already. It cannot
//! open files, make sockets, or start programs: a fault in a decoder stays inside of the bytes that it decodes.
//!
//! | layer | takes away | where the kernel lacks it |
//! |---|---|---|
//! | seccomp | every system call but those of [`ALLOWED`]; memory that can be executed; new processes (new threads inherit all this) | Landlock alone holds the thread |
//! | Landlock | opening, making or executing any file, TCP, signals and abstract sockets outside | seccomp alone holds the thread; older kernels know fewer of these |
//!
//! Every kernel that Qubes ships has both, and each is enough to keep a thread from files, network and programs. Where
//! there is neither, the thread runs without walls: all checks of this crate are the same, what is missing is what would
//! hold a fault in them, and every run that takes a package says so ([`Walls::missing`]).

use std::io;
use std::sync::OnceLock;
use std::thread;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// What holds a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    /// System calls are filtered.
    pub seccomp: bool,
    /// Files and network are out of reach.
    pub landlock: bool,
}

impl Walls {
    /// What to say about walls that are not there; nothing while one of them stands.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        let warning = "this kernel has neither seccomp nor Landlock: packages are checked as ever, but the code that reads \
                       them keeps the rights of this program";
        (!self.seccomp && !self.landlock).then_some(warning)
    }
}

/// What holds a confined thread on this machine.
///
/// # Errors
/// If no thread can be started.
pub fn walls() -> io::Result<Walls> {
    let thread = thread::Builder::new().name("confined".to_owned()).spawn(this_thread)?;
    thread.join().map_err(|_| io::Error::other("the confined thread failed"))
}

/// Takes the rights of the calling thread away, for good.
pub fn this_thread() -> Walls {
    // Landlock first: the filter does not let it through.
    let landlock = lock_landlock().unwrap_or(false);
    let seccomp = programs().iter().all(|program| apply_filter(program).is_ok()) && !programs().is_empty();
    Walls { seccomp, landlock }
}

/// Runs `work` in a thread without rights and waits for it.
///
/// # Errors
/// If no thread can be started.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("confined".to_owned()).spawn_scoped(scope, || {
            this_thread();
            work()
        })?;
        started.join().map_err(|_| io::Error::other("the confined thread failed"))
    })
}

/// System calls that remain: memory, locks, time, descriptors that are open, threads, the end.
const ALLOWED: [libc::c_long; 33] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    // Answered by the other filter: "no such call", upon which the C library takes `clone`, whose flags can be seen.
    libc::SYS_clone3,
    libc::SYS_copy_file_range,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn lock_landlock() -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    // Nothing is allowed again, so every handled access is refused.
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// The filters, made once; none where this processor is not known.
fn programs() -> &'static [BpfProgram] {
    static PROGRAMS: OnceLock<Vec<BpfProgram>> = OnceLock::new();
    PROGRAMS.get_or_init(|| filters().unwrap_or_default())
}

fn filters() -> Result<Vec<BpfProgram>, Box<dyn std::error::Error>> {
    let arch = std::env::consts::ARCH.try_into()?;
    let errno =
        |number: libc::c_int| Ok::<_, std::num::TryFromIntError>(SeccompAction::Errno(number.try_into()?));
    let unknown = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        errno(libc::ENOSYS)?,
        arch,
    )?;

    let argument =
        |at, width, op, value| SeccompRule::new(vec![SeccompCondition::new(at, width, op, value)?]);
    let without_exec = |at| {
        let exec = u64::try_from(libc::PROT_EXEC).unwrap_or(4);
        argument(at, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(exec), 0)
    };
    let thread = u64::try_from(libc::CLONE_THREAD)?;
    let set_name = u64::try_from(libc::PR_SET_NAME)?;
    let rules = ALLOWED.iter().map(|call| (*call, Vec::new())).chain([
        (libc::SYS_mmap, vec![without_exec(2)?]),
        (libc::SYS_mprotect, vec![without_exec(2)?]),
        (
            libc::SYS_clone,
            vec![argument(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)?],
        ),
        (libc::SYS_prctl, vec![argument(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, set_name)?]),
    ]);
    let allowed = SeccompFilter::new(rules.collect(), errno(libc::EPERM)?, SeccompAction::Allow, arch)?;
    Ok(vec![unknown.try_into()?, allowed.try_into()?])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_planted_attempt_fails() {
        let walls = walls().unwrap();
        if walls.missing().is_some() {
            eprintln!("SKIPPED: this kernel has neither seccomp nor Landlock");
            return;
        }
        let mut open = File::open("/proc/self/status").unwrap();
        run(move || {
            assert!(File::open("/etc/hostname").is_err(), "opened a file");
            assert!(File::create("/tmp/planted").is_err(), "made a file");
            assert!(std::fs::read_dir("/").is_err(), "listed a directory");
            assert!(
                std::fs::remove_file("/tmp/planted").is_err_and(|e| e.kind() != io::ErrorKind::NotFound),
                "unlink"
            );
            assert!(
                TcpStream::connect("127.0.0.1:9")
                    .is_err_and(|e| e.kind() != io::ErrorKind::ConnectionRefused)
            );
            assert!(UdpSocket::bind("127.0.0.1:0").is_err(), "made a socket");
            assert!(UnixStream::pair().is_err(), "made a socket pair");
            assert!(Command::new("/bin/true").spawn().is_err(), "started a program");
            // What decoders need still works.
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            assert!(text.contains("Threads:"), "an open descriptor cannot be read");
            let sum: u64 = thread::spawn(|| {
                assert!(File::open("/etc/hostname").is_err(), "a new thread has the rights back");
                vec![1_u64; 4 << 20].iter().sum()
            })
            .join()
            .unwrap();
            assert_eq!(sum, 4 << 20);
        })
        .unwrap();
        assert!(File::open("/etc/hostname").is_ok(), "the rest of the program keeps its rights");
    }

    #[test]
    fn only_a_thread_without_any_wall_is_worth_a_warning() {
        for (seccomp, landlock) in [(false, true), (true, false), (true, true)] {
            assert_eq!(Walls { seccomp, landlock }.missing(), None);
        }
        assert!(Walls::default().missing().unwrap().contains("neither seccomp nor Landlock"));
    }

    #[test]
    fn decoding_on_two_threads_works_without_rights() {
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut builder = liblzma::stream::MtStreamBuilder::new();
        builder.threads(1).preset(0).block_size(1 << 20);
        let mut xz = liblzma::bufread::XzEncoder::new_stream(&text[..], builder.encoder().unwrap());
        let mut packed = Vec::new();
        xz.read_to_end(&mut packed).unwrap();
        let unpacked = run(|| {
            let stream = liblzma::stream::MtStreamBuilder::new()
                .threads(2)
                .memlimit_threading(64 << 20)
                .memlimit_stop(64 << 20)
                .decoder()
                .unwrap();
            let mut out = Vec::new();
            liblzma::bufread::XzDecoder::new_stream(&packed[..], stream).read_to_end(&mut out).map(|_| out)
        });
        assert!(unpacked.unwrap().unwrap() == text);
    }
}
