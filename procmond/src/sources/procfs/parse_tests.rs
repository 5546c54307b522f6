use super::*;
use crate::text::FIELD_BYTES;
use proptest::prelude::*;

const STAT: &[u8] =
    b"4242 (we ird) (x)) S 1 4242 4200 34816 4242 4194304 1 2 3 4 50 25 0 0 20 0 3 0 987654 1000000 300 \
18446744073709551615 11 12 13 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 20 21 22 23 24 256\n";

#[test]
fn fields_are_counted_from_the_last_parenthesis() {
    let stat = stat(STAT).unwrap();
    assert_eq!((stat.pid, stat.comm, stat.status()), (4242, b"we ird) (x)".as_slice(), "sleeping"));
    assert_eq!((stat.ppid, stat.session, stat.threads), (1, 4200, 3));
    assert_eq!((stat.cpu_ticks, stat.start_ticks, stat.rss_pages), (75, 987_654, 300));
    assert_eq!(stat.image, ImageMark([11, 13, 20, 21, 22, 23]));
    assert_eq!((stat.image.fixed(), ImageMark([1, 0, 0, 0, 0, 0]).fixed()), (Some([11, 13, 20]), None));
    assert_eq!(ImageMark([0, 140_720_386_955_106, 0, 0, 0, 0]).fixed(), None, "in the middle of an exec");
    assert_eq!(stat.exit_status, 256);
    assert_eq!(tty(stat.tty_nr).as_deref(), Some("pts/0"));
}

#[test]
fn a_stat_that_ends_early_is_refused() {
    let whole = stat(STAT).unwrap();
    for end in 0..STAT.len() {
        if let Some(part) = stat(&STAT[..end]) {
            assert_eq!((part.pid, part.start_ticks), (whole.pid, whole.start_ticks), "cut at {end}");
        }
    }
}

#[test]
fn exit_codes_tell_a_status_from_a_signal() {
    assert_eq!((exit_code(0), exit_code(3 << 8), exit_code(9), exit_code(0x80 | 11)), (0, 3, -9, -11));
}

#[test]
fn status_gives_the_ids_and_the_innermost_pid() {
    let parsed = status(b"Name:\ta\\nUid:\t7\nUid:\t1000\t0\t0\t0\nGid:\t100\t1\t1\t1\nNSpid:\t4242\t17\t1\n");
    let expected = Status {
        uid: Some(1000),
        euid: Some(0),
        gid: Some(100),
        namespace_pid: Some(1),
        outermost: false,
        traced: false,
    };
    assert_eq!(parsed, expected);
    assert!(status(b"NSpid:\t4242\n").outermost);
    assert_eq!((status(b"TracerPid:\t0\n").traced, status(b"TracerPid:\t77\n").traced), (false, true));
}

#[test]
fn arguments_keep_their_boundaries() {
    let line = command_line(b"sh\0-c\0echo a b\0").unwrap();
    assert_eq!((line.text.as_str(), line.arg_lengths.as_slice()), ("sh -c echo a b", [2, 2, 8].as_slice()));
    let line = command_line(b"x\0\0y\0\xff\0\0").unwrap();
    assert_eq!((line.text.as_str(), line.arg_lengths.as_slice()), ("x  y \\xff ", [1, 0, 1, 4, 0].as_slice()));
    let title = command_line(b"postgres: writer\0\0\0\0\0").unwrap();
    assert_eq!((title.text.as_str(), title.arg_lengths.as_slice()), ("postgres: writer", [16].as_slice()));
    assert_eq!((command_line(b""), command_line(b"\0\0")), (None, None));
}

#[test]
fn a_long_command_line_is_cut_at_the_field_bound() {
    let line = command_line(&vec![b'a'; FIELD_BYTES + 1]).unwrap();
    assert_eq!((line.text.len(), line.truncated), (FIELD_BYTES, true));
}

#[test]
fn the_control_group_that_places_the_process_is_chosen() {
    assert_eq!(cgroup(b"0::/system.slice/ssh.service\n"), Some(b"/system.slice/ssh.service".as_slice()));
    let hybrid = b"12:pids:/a\n1:name=systemd:/user.slice\n0::/\n";
    assert_eq!(cgroup(hybrid), Some(b"/user.slice".as_slice()));
    assert_eq!((cgroup(b"0::/\n"), cgroup(b"")), (Some(b"/".as_slice()), None));
}

#[test]
fn containers_of_the_usual_engines_are_recognised() {
    let id = "3f4e1c0b9a8d7f6e5d4c3b2a190807f6e5d4c3b2a190807f6e5d4c3b2a190807";
    for path in [
        format!("/docker/{id}"),
        format!("/system.slice/docker-{id}.scope"),
        format!("/system.slice/docker-{id}.scope/init"),
        format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
        format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}"),
        format!("/machine.slice/libpod-{id}.scope/container"),
        format!("/kubepods/burstable/pod1/crio-{id}"),
    ] {
        assert_eq!(container_id(path.as_bytes()), Some(id), "{path}");
    }
    for path in ["/user.slice".to_owned(), format!("/machine.slice/libpod-conmon-{id}.scope"), format!("/x/{id}0")] {
        assert_eq!(container_id(path.as_bytes()), None, "{path}");
    }
}

#[test]
fn terminals_are_named_as_ps_names_them() {
    let device = |major: u32, minor: u32| (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    assert_eq!(tty(0), None);
    for (major, minor, name) in [
        (136, 3, "pts/3"),
        (137, 4, "pts/260"),
        (4, 1, "tty1"),
        (4, 64, "ttyS0"),
        (5, 1, "console"),
        (9, 300, "9:300"),
    ] {
        assert_eq!(tty(device(major, minor)).as_deref(), Some(name));
    }
}

#[test]
fn namespace_links_and_boot_time_are_read() {
    assert_eq!(namespace_inode(b"pid:[4026531836]"), Some(4_026_531_836));
    assert_eq!((namespace_inode(b"pid:["), namespace_inode(b"pid:[-1]")), (None, None));
    assert_eq!(boot_seconds(b"cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(stat(&bytes).is_none_or(|stat| bytes.len() > stat.comm.len()));
        prop_assert!(command_line(&bytes).is_none_or(|line| line.text.len() <= FIELD_BYTES));
        prop_assert!(container_id(&bytes).is_none_or(|id| id.len() == 64));
        prop_assert!(cgroup(&bytes).is_none_or(|path| path.len() < bytes.len()));
        prop_assert!(status(&bytes) == Status::default() || bytes.contains(&b':'));
        prop_assert!(namespace_inode(&bytes).is_none() || bytes.ends_with(b"]"));
        prop_assert!(boot_seconds(&bytes).is_none_or(|seconds| seconds >= 0));
    }

    #[test]
    fn a_changed_byte_of_a_real_stat_never_panics(at in 0..STAT.len(), byte in any::<u8>()) {
        let mut bytes = STAT.to_vec();
        bytes[at] = byte;
        prop_assert!(stat(&bytes).is_none_or(|stat| stat.comm.len() < STAT.len()));
    }

    #[test]
    fn argument_lengths_add_up_to_the_text(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
        if let Some(line) = command_line(&bytes) {
            let total: usize = line.arg_lengths.iter().map(|length| *length as usize + 1).sum();
            prop_assert_eq!(total, line.text.len() + 1);
        }
    }

    #[test]
    fn every_device_number_has_a_name(device in 1u32..) {
        prop_assert!(tty(device).is_some());
    }
}
