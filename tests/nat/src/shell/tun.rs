//! A TUN device: what the kernel routes to it is read, and what is written to it the kernel routes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Opens a TUN device of this name in the current network namespace, making it; it is gone when the file is closed.
/// Each read and write is one IP packet, without a header before it. Needs CAP_NET_ADMIN.
pub(crate) fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name of a device has 1 to 15 characters",
        ));
    }
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    #[expect(unsafe_code, reason = "no safe interface to TUNSETIFF in the standard library")]
    // SAFETY: the descriptor is open, and the request is a whole `ifreq` that outlives the call; the kernel writes the
    // device's name back into it and keeps no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}
