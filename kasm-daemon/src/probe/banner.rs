//! The protocols where the server speaks first: VNC and SSH. Pure: bytes in, a verdict out.

use super::Verdict;
use super::verdict::unexpected;

/// What VNC is called in messages.
pub(super) const VNC: &str = "VNC";
/// What SSH is called in messages.
pub(super) const SSH: &str = "SSH";

/// RFC 4253 section 4.2: the identification line is at most this long, its end included.
const SSH_LINE_MAX: usize = 255;
/// How much may come before it. The RFC sets no limit; a banner of this size would fill two screens.
const SSH_LINES_BEFORE_MAX: usize = 4096;

/// Judges a VNC server's greeting: twelve bytes, `RFB 003.008` and a line feed (RFC 6143 section 7.1.1).
///
/// Any version will do. Nothing is sent in answer, so the server never gets as far as to ask for a password.
pub fn judge_vnc(answer: &[u8]) -> Verdict {
    const SHAPE: [u8; 12] = *b"RFB ddd.ddd\n";
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if !answer.iter().zip(&SHAPE).all(fits) {
        return unexpected(answer, VNC);
    }
    if answer.len() < SHAPE.len() { Verdict::More } else { Verdict::Ready }
}

/// Judges an SSH server's identification: a line that begins with `SSH-2.0-`, or with `SSH-1.99-` from a server that
/// also knows the older protocol (RFC 4253 sections 4.2 and 5.1). Other lines may come before it, up to 4 KiB of them.
pub fn judge_ssh(answer: &[u8]) -> Verdict {
    let mut rest = answer;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        if line.starts_with(b"SSH-") {
            return judge_ssh_identification(line);
        }
        rest = after;
        if answer.len() - rest.len() > SSH_LINES_BEFORE_MAX {
            return unexpected(answer, SSH);
        }
    }
    let overlong_line = rest.starts_with(b"SSH-") && rest.len() >= SSH_LINE_MAX;
    if overlong_line || rest.len() > SSH_LINES_BEFORE_MAX { unexpected(answer, SSH) } else { Verdict::More }
}

fn judge_ssh_identification(line: &[u8]) -> Verdict {
    let known = line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-");
    if known && line.len() <= SSH_LINE_MAX { Verdict::Ready } else { unexpected(line, SSH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::NotReady(_))
    }

    #[test]
    fn vnc_greetings() {
        for good in [b"RFB 003.003\n", b"RFB 003.008\n", b"RFB 004.001\n"] {
            assert_eq!(judge_vnc(good), Verdict::Ready);
            for end in 0..good.len() {
                assert_eq!(judge_vnc(&good[..end]), Verdict::More);
            }
        }
        assert_eq!(judge_vnc(b"RFB 003.008\nmore"), Verdict::Ready);
        for bad in [&b"RFB 3.8\n"[..], b"RFB 003.008\r\n", b"SSH-2.0-x\r\n", b"\x03", b"RFB 00a"] {
            assert!(refused(judge_vnc(bad)), "{bad:?}");
        }
    }

    #[test]
    fn ssh_identifications() {
        let good = [&b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..], b"SSH-1.99-x\n", b"one\r\ntwo\r\nSSH-2.0-x y\r\n"];
        for good in good {
            assert_eq!(judge_ssh(good), Verdict::Ready);
            for end in 0..good.len() {
                assert_eq!(judge_ssh(&good[..end]), Verdict::More, "{end} of {good:?}");
            }
        }
        assert!(refused(judge_ssh(b"SSH-1.5-x\r\n")), "only the old protocol");
        assert!(refused(judge_ssh(b"SSH-2.1-x\r\n")));
        let told = judge_ssh(b"SSH-1.5-x\r\n");
        assert_eq!(told, Verdict::NotReady("sent \"SSH-1.5-x\\r\\n\" instead of an SSH answer".into()));
    }

    #[test]
    fn ssh_is_bounded() {
        let longest = [b"SSH-2.0-".as_slice(), &[b'x'; 245], b"\r\n"].concat();
        assert_eq!((longest.len(), judge_ssh(&longest)), (SSH_LINE_MAX, Verdict::Ready));
        let longer = [b"SSH-2.0-".as_slice(), &[b'x'; 246], b"\r\n"].concat();
        assert!(refused(judge_ssh(&longer)));
        assert!(refused(judge_ssh(&longer[..SSH_LINE_MAX])), "without its end it is already too long");
        assert_eq!(judge_ssh(&[b'x'; SSH_LINES_BEFORE_MAX]), Verdict::More);
        assert!(refused(judge_ssh(&[b'x'; SSH_LINES_BEFORE_MAX + 1])));
        assert!(refused(judge_ssh(&b"line\r\n".repeat(700))));
    }
}
