use proptest::prelude::*;

use super::*;

#[test]
fn a_line_is_read_with_its_escapes() {
    let line = br"36 25 0:52 / /mnt/my\040disk\134\012x rw,nosuid shared:7 master:1 - fuse.rclone r:\043 rw,user_id=0";
    let entry = parse(line).unwrap();
    assert_eq!(entry.path, b"/mnt/my disk\\\nx");
    assert_eq!(entry.source, b"r:#");
    assert_eq!((entry.fs.as_str(), entry.device, entry.readonly), ("fuse.rclone", (0, 52), false));
    assert_eq!((entry.fuse_user, entry.allow_other), (Some(0), false));
    assert_eq!(parse(b"36 25 0:52 / - rw - ext4 /dev/vda ro").unwrap().path, b"-");
    assert_eq!(parse(b"36 25 0:52 / /mnt rw shared:7"), None);
}

#[test]
fn only_super_options_make_a_disk_read_only() {
    assert!(!parse(b"27 1 254:0 / / ro,relatime - ext4 /dev/vda rw,discard").unwrap().readonly);
    assert!(parse(b"27 1 254:0 / / rw,relatime - ext4 /dev/vda ro,errors=remount-ro").unwrap().readonly);
}

#[test]
fn this_kind_of_machine_has_one_disk_and_one_tmpfs() {
    let mounts = Mounts::of(include_bytes!("../../../testdata/mountinfo-microvm.txt"), b"/var/lib/docker");
    let disks: Vec<_> = mounts.disks.iter().map(|m| m.entry.path.as_slice()).collect();
    assert_eq!(disks, [&b"/"[..], b"/mnt/sandboxing/model_tools_env/v1/python"]);
    assert!(mounts.network.is_empty());
}

#[test]
fn a_server_with_everything() {
    let mounts = Mounts::of(include_bytes!("../../../testdata/mountinfo-server.txt"), b"/var/lib/docker");
    let shown = |m: &Mounted| String::from_utf8_lossy(&m.entry.path).into_owned();
    let disks: Vec<_> = mounts.disks.iter().map(shown).collect();
    assert_eq!(disks, ["/", "/boot/efi", "/data", "/mnt/ntfs", "/pool", "/scratch"]);
    let network: Vec<_> = mounts.network.iter().map(shown).collect();
    assert_eq!(network, ["/mnt/auto/home", "/mnt/cifs", "/mnt/media", "/mnt/nfs", "/mnt/old"]);
    let of = |path: &str| mounts.network.iter().chain(&mounts.disks).find(|m| shown(m) == path).unwrap();
    assert_eq!(of("/data").aliases, [b"/srv/data".to_vec(), b"/var/lib/docker/volumes/d/_data".to_vec()]);
    assert!(of("/mnt/auto/home").automounted);
    assert!(of("/mnt/old").shadowed && !of("/mnt/media").shadowed);
    assert!(of("/mnt/media").entry.allow_other);
    assert!(mounts.is_mounted(b"/srv/data") && mounts.is_mounted(b"/snap/core/1") && !mounts.is_mounted(b"/mnt"));
    assert!(!mounts.is_mounted(b"/var/lib/docker/overlay2/abc/merged"), "the engine's own are not worth a list");
}

#[test]
fn what_is_mounted_over_hides_what_was_there() {
    let text = b"1 0 254:0 / / rw - ext4 /dev/a rw\n2 1 0:9 / /m rw - fuse.x x rw\n3 2 0:10 / /m rw - fuse.y y rw\n4 3 0:11 / /m/in rw - fuse.z z rw\n";
    let mounts = Mounts::of(text, b"/d");
    let visible: Vec<_> = mounts.network.iter().map(|m| (m.entry.fs.as_str(), m.shadowed)).collect();
    assert_eq!(visible, [("fuse.y", false), ("fuse.z", false)]);
}

#[test]
fn beyond_the_limit_mounts_are_counted() {
    let text: String = (10..700).map(|n| format!("{n} 1 0:{n} / /m{n} rw - nfs s:/{n} rw\n")).collect();
    let mounts = Mounts::of(text.as_bytes(), b"/d");
    assert_eq!((mounts.network.len(), mounts.network_left_out), (512, 178));
    assert!(mounts.is_mounted(b"/m699"), "what is not listed is not gone");
}

proptest! {
    #[test]
    fn no_text_harms(text in proptest::collection::vec(prop_oneof![Just(b' '), Just(b'\n'), Just(b'-'), Just(b'1'), Just(b':'), Just(b'/'), Just(b'\\'), any::<u8>()], 0..400)) {
        let mounts = Mounts::of(&text, b"/var/lib/docker");
        prop_assert!(mounts.disks.len() <= 400);
    }
}
