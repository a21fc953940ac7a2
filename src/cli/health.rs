//! `health`: asks a running instance whether it is alive.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{EXIT_USAGE, GlobalArgs, HealthArgs, report};
use crate::config;

/// From connecting to the first line of the answer. Below the 5 s that container checks commonly allow.
const DEADLINE: Duration = Duration::from_secs(3);

/// No status line that we ask for is longer.
const STATUS_LINE_BYTES: usize = 64;

/// Asks /livez: 0 where the answer is 200, else 1.
pub fn health(global: &GlobalArgs, args: &HealthArgs) -> Result<ExitCode, anyhow::Error> {
    let (address, host, path) = match &args.url {
        Some(url) => match parse(url) {
            Some((host, path)) => {
                let mut addresses = host.to_socket_addrs().with_context(|| format!("{host} has no address"))?;
                let address = addresses.next().with_context(|| format!("{host} has no address"))?;
                (address, host, path)
            }
            None => {
                writeln!(
                    io::stderr().lock(),
                    "--url: error: takes http://host:port[/path], without user and password"
                )?;
                return Ok(ExitCode::from(EXIT_USAGE));
            }
        },
        None => match config::admin_from_process(&global.config_args()) {
            Ok(admin) => {
                let address = reachable(admin.listen);
                (address, address.to_string(), "/livez".to_owned())
            }
            Err(found) => {
                report(&found);
                return Ok(ExitCode::from(EXIT_USAGE));
            }
        },
    };
    let status = ask(address, &host, &path).with_context(|| format!("http://{host}{path} does not answer"))?;
    anyhow::ensure!(status == 200, "http://{host}{path} answers {status}");
    Ok(ExitCode::SUCCESS)
}

/// Host with port, and path.
fn parse(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty())?.1;
    port.parse::<u16>().ok()?;
    // Addresses are shown in messages: nothing secret may stand in them.
    if url.contains(['@', '?', '#']) {
        return None;
    }
    let path = if path.is_empty() || path == "/" { "/livez" } else { path };
    // What is no part of a request's first line may not get into it.
    let clean = url.bytes().all(|byte| byte.is_ascii_graphic());
    clean.then(|| (host.to_owned(), path.to_owned()))
}

/// Who listens on all addresses is reached on the loopback's.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status code of a GET.
fn ask(address: SocketAddr, host: &str, path: &str) -> io::Result<u16> {
    let end = Instant::now() + DEADLINE;
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut line = Vec::with_capacity(STATUS_LINE_BYTES);
    while line.len() < STATUS_LINE_BYTES && !line.contains(&b'\n') {
        stream.set_read_timeout(Some(left(end)?))?;
        let mut chunk = [0; STATUS_LINE_BYTES];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        line.extend_from_slice(&chunk[..count]);
    }
    let text = String::from_utf8_lossy(&line);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves one answer; gives the address and, in the end, what was asked.
    fn answer(text: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, served)
    }

    #[test]
    fn the_status_decides() {
        let (address, served) = answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(ask(address, "h:1", "/livez").unwrap(), 200);
        assert!(served.join().unwrap().starts_with("GET /livez HTTP/1.1\r\nhost: h:1\r\n"));
        let (address, served) = answer("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(ask(address, "h:1", "/livez").unwrap(), 503);
        served.join().unwrap();
        let (address, served) = answer("SSH-2.0\r\n");
        assert!(ask(address, "h:1", "/livez").is_err());
        served.join().unwrap();
    }

    #[test]
    fn a_url_names_host_port_and_path() {
        assert_eq!(parse("http://h:1"), Some(("h:1".into(), "/livez".into())));
        assert_eq!(parse("http://[::1]:1/readyz"), Some(("[::1]:1".into(), "/readyz".into())));
        for bad in [
            "h:1",
            "https://h:1",
            "http://h",
            "http://:1",
            "http://h:1/a b",
            "http://h:1/\r\nx: y",
            "http://user:password@h:1",
            "http://h:1/livez?token=t",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_addresses_are_reached_on_the_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
    }
}
