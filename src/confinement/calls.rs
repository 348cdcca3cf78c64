//! Which system calls are refused (`seccomp(2)`).
//!
//! It is a list of what is refused, not of what is allowed: what a C library or a kernel of next year needs cannot be known
//! today, and a gateway that an update of the system stops is worse than one that could do a little too much. What is
//! refused fails with an error, and nothing is killed. The unit in `packaging/` adds systemd's list of what is allowed.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

/// For ever, whatever their arguments.
const REFUSED: &[c_long] = &[
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces, mounts, roots.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // Keys of the kernel, clocks, names.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Who the process is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// Of `clone(2)`; threads share all of these with each other.
const NAMESPACES: [c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The network, the machine itself, and where the C library asks for the machine's addresses.
const FAMILIES: [c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// From now on, in this thread and those that it starts.
pub(super) fn refuse() -> Result<(), String> {
    let programs = programs().map_err(|error| error.to_string())?;
    programs.iter().try_for_each(|program| apply_filter(program)).map_err(|error| error.to_string())
}

fn programs() -> Result<Vec<BpfProgram>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_HERE).map(|number| (*number, Vec::new())).collect();
    rules.extend(conditional()?);
    // The C library starts threads with this one, whose flags a filter cannot see, and with `clone` where it is not there.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut programs = vec![filter(rules, libc::EPERM)?, filter(absent, libc::ENOSYS)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(x32());
    }
    Ok(programs)
}

/// The same machine has a second set of numbers for the same calls (x32), which passes the check of the architecture.
fn x32() -> BpfProgram {
    const FIRST: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number is what the kernel describes a call with first (`struct seccomp_data`).
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, FIRST),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, error: c_int) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let refused = SeccompAction::Errno(error as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

/// What is refused with some arguments only.
fn conditional() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    let has = |argument, bits: c_int| one(argument, SeccompCmpOp::MaskedEq(bits as u64), bits as u64);
    let mut clone = vec![rule([(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)])?];
    for namespace in NAMESPACES {
        clone.push(has(0, namespace)?);
    }
    let other_family = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, family as u64));
    Ok(vec![
        (libc::SYS_clone, clone),
        (libc::SYS_socket, vec![rule(other_family)?]),
        // No memory that could be written becomes code.
        (libc::SYS_mprotect, vec![has(2, libc::PROT_EXEC)?]),
        (libc::SYS_pkey_mprotect, vec![has(2, libc::PROT_EXEC)?]),
        (libc::SYS_mmap, vec![has(2, libc::PROT_WRITE | libc::PROT_EXEC)?]),
        // What is typed at a terminal of somebody else.
        (libc::SYS_ioctl, vec![one(1, SeccompCmpOp::Eq, libc::TIOCSTI)?]),
    ])
}

fn one(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    rule([(argument, operator, value)])
}

/// All of these must hold.
fn rule<const N: usize>(conditions: [(u8, SeccompCmpOp, u64); N]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.into_iter().map(|(argument, operator, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// The filter holds for a thread and those that it starts, so that a test can live with it.
    fn filtered<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        let filtered = || {
            refuse().unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(filtered).join().unwrap())
    }

    #[test]
    fn what_a_gateway_never_does_is_refused() {
        let can = || Command::new("true").status().is_ok();
        assert!(can(), "without the filter it can");
        filtered(|| {
            let denied = |kind: Option<ErrorKind>, what: &str| {
                assert_eq!(kind, Some(ErrorKind::PermissionDenied), "{what}");
            };
            denied(Command::new("true").status().err().map(|error| error.kind()), "another program");
            let packets = Socket::new(Domain::from(libc::AF_ALG), Type::SEQPACKET, None);
            denied(packets.err().map(|error| error.kind()), "the kernel's own ciphers");
            let code = memmap2::MmapMut::map_anon(4096).unwrap().make_exec();
            denied(code.err().map(|error| error.kind()), "memory that becomes code");
            let id = rustix::thread::set_thread_uid(rustix::process::Uid::ROOT);
            denied(id.err().map(rustix::io::Errno::kind), "another user");
        });
    }

    #[test]
    fn what_a_gateway_does_goes_on() {
        filtered(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let thread = std::thread::spawn(move || std::net::TcpStream::connect(address).is_ok());
            assert!(listener.accept().is_ok() && thread.join().unwrap());
            assert!(std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "text").unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            assert_eq!(runtime.block_on(async { tokio::fs::read(file.path()).await.unwrap() }), b"text");
            assert!(std::os::unix::net::UnixStream::pair().is_ok());
        });
    }
}
