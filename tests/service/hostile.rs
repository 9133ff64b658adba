//! Servers that mean harm, or do not work: every wait and every size is bounded.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::download::{fault, files};
use super::search::repomd;
use super::{UpdateVm, programs, repo, rpm, small_repository};
use crate::support::web::{Fault, Files, Kind, Web};

fn on(path: &str, kind: Kind) -> Fault {
    Fault { path: path.into(), kind, times: None }
}

#[test]
fn streams_without_an_end_come_to_one() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    for (path, why) in [
        ("*/repomd.xml", "repomd.xml: larger than 4194304 bytes"),
        ("*primary.xml.gz", "list of packages: larger than "),
        ("/mirrors", "reading mirrorlist"),
    ] {
        let web = Web::start(
            files(root.path())?,
            vec![on(path, Kind::Endless), on("/mirrors", Kind::Replace { to: "/x".into() })],
            false,
        )?;
        let place = if path == "/mirrors" {
            format!("[r]\nmirrorlist={}/mirrors\n", web.url)
        } else {
            repo("r", &web.url)
        };
        let begun = Instant::now();
        let answer = UpdateVm::new()?.search("*", &place)?;
        assert_eq!((answer.rc, answer.out.len()), (1, 0));
        assert!(answer.err.contains(why), "{}", answer.err);
        assert!(begun.elapsed() < Duration::from_secs(20), "{path}: {:?}", begun.elapsed());
    }
    let web = Web::start(files(root.path())?, vec![fault(Kind::Endless, None)], false)?;
    let answer = UpdateVm::new()?.download("qubes-template-big", &repo("r", &web.url))?;
    let whole = std::fs::read(rpm(root.path(), "qubes-template-big")?)?;
    assert!(answer.rc == 1 && answer.out.len() < whole.len(), "{} bytes", answer.out.len());
    assert!(answer.err.contains("more bytes than the repository says"), "{}", answer.err);
    Ok(())
}

#[test]
fn a_server_that_falls_silent_is_left_for_the_next() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let whole = std::fs::read(rpm(root.path(), "qubes-template-big")?)?;
    let good = Web::start(files(root.path())?, Vec::new(), false)?;
    let slow = Web::start(files(root.path())?, vec![on("*", Kind::Stall { at: 100 })], false)?;
    let place = |first: &Web| format!("{}timeout=1\n", repo("r", &format!("{},{}", first.url, good.url)));
    let begun = Instant::now();
    let answer = UpdateVm::new()?.search("qubes-template-big", &place(&slow))?;
    assert_eq!((answer.rc, answer.names().len()), (0, 1), "{}", answer.err);
    let slow = Web::start(files(root.path())?, vec![fault(Kind::Stall { at: 1_500_000 }, None)], false)?;
    let answer = UpdateVm::new()?.download("qubes-template-big", &place(&slow))?;
    assert_eq!((answer.rc, answer.out == whole), (0, true), "{}", answer.err);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn metadata_that_unpacks_to_too_much_is_refused() -> Result<()> {
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1)?;
    bomb.write_all(b"<metadata><package><name>qubes-template-x</name><summary>")?;
    std::io::copy(&mut std::io::repeat(b' ').take(256 << 20), &mut bomb)?;
    let bomb = bomb.finish()?;
    let endless_elements =
        zstd::encode_all("<metadata>".as_bytes().chain(std::io::repeat(b'<').take(1 << 20)), 1)?;
    for list in
        [bomb, endless_elements, b"<metadata><package></metadata>".to_vec(), vec![0x1f, 0x8b, 1, 2, 3]]
    {
        let files = Files::from([
            ("/repodata/repomd.xml".into(), repomd("p", &list).into_bytes()),
            ("/p".into(), list),
        ]);
        let web = Web::start(Arc::new(files), Vec::new(), false)?;
        let begun = Instant::now();
        let answer = UpdateVm::new()?.search("*", &repo("r", &web.url))?;
        assert_eq!(answer.rc, 1, "{}", answer.err);
        assert!(answer.err.contains("list of packages"), "{}", answer.err);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn names_that_lead_out_of_the_repository_are_refused() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let secret = root.path().join("secret");
    std::fs::write(&secret, "secret")?;
    let list = format!(
        "<metadata><package type=\"rpm\"><name>qubes-template-x</name><arch>noarch</arch><version epoch=\"0\" ver=\"1\" rel=\"1\"/>\
         <checksum type=\"sha256\">{}</checksum><size package=\"6\"/><time build=\"1700000000\"/><location href=\"../secret\"/><format><license>GPL</license>\
         </format></package></metadata>",
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    );
    let inner = root.path().join("inner");
    std::fs::create_dir_all(inner.join("repodata"))?;
    std::fs::write(inner.join("p"), &list)?;
    std::fs::write(inner.join("repodata/repomd.xml"), repomd("p", list.as_bytes()))?;
    let answer = UpdateVm::new()?.download("qubes-template-x", &repo("r", &inner.display().to_string()))?;
    assert_eq!((answer.rc, answer.out.len()), (1, 0));
    assert!(answer.err.contains("a file outside of the repository"), "{}", answer.err);
    std::fs::write(inner.join("repodata/repomd.xml"), repomd("../secret", b"secret"))?;
    let answer = UpdateVm::new()?.search("*", &repo("r", &inner.display().to_string()))?;
    assert!(answer.rc == 1 && answer.err.contains("a file outside of the repository"), "{}", answer.err);
    Ok(())
}

/// A proxy that connects wherever it is asked to, and counts.
fn proxy() -> Result<(String, std::sync::mpsc::Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || -> Result<()> {
                let mut lines = BufReader::new(client.try_clone()?).lines();
                let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
                for line in lines {
                    if line?.is_empty() {
                        break;
                    }
                }
                let target = first.split(' ').nth(1).unwrap_or("").to_owned();
                let server = TcpStream::connect(&target)?;
                tell.send(target)?;
                let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
                write!(up, "HTTP/1.1 200 Connected\r\n\r\n")?;
                let (mut from_client, mut to_server) = (client, server);
                std::thread::spawn(move || std::io::copy(&mut down, &mut up));
                std::io::copy(&mut from_client, &mut to_server)?;
                Ok(())
            });
        }
    });
    Ok((address, told))
}

#[test]
fn a_proxy_is_used_where_one_is_set() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let web = Web::start(files(root.path())?, Vec::new(), false)?;
    let host = web.url.trim_start_matches("http://").to_owned();
    let (address, told) = proxy()?;
    for (variables, more, through) in [
        (vec![("http_proxy", address.as_str())], String::new(), true),
        (vec![("http_proxy", address.as_str()), ("no_proxy", "127.0.0.1")], String::new(), false),
        (vec![("http_proxy", address.as_str())], "proxy=_none_\n".to_owned(), false),
        (vec![("HTTP_PROXY", address.as_str())], String::new(), false),
        (vec![], format!("proxy={address}\n"), true),
    ] {
        let mut update_vm = UpdateVm::new()?;
        update_vm.variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = update_vm.search("qubes-template-big", &format!("{}{more}", repo("r", &web.url)))?;
        assert_eq!((answer.names().len(), answer.err.as_str()), (1, ""), "{variables:?} {more}");
        let seen: Vec<String> = told.try_iter().collect();
        assert_eq!(
            !seen.is_empty() && seen.iter().all(|target| *target == host),
            through,
            "{variables:?} {more} {seen:?}"
        );
    }
    Ok(())
}
