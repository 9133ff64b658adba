//! HTTPS: the test's own authority, server and client certificates, made by openssl.

use std::fs;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;

use super::nginx::Nginx;
use super::{UpdateVm, peer, programs, repo, small_repository};

/// An authority `NAME.crt`, and for each of `leaves` a certificate that it signed.
fn authority(folder: &Path, name: &str, leaves: &[&str]) -> Result<()> {
    let openssl = peer("openssl", "openssl");
    let run = |line: &str| programs::success(folder, &openssl, line.split(' ')).map(drop);
    run(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.crt -days 30 -subj /CN={name}"
    ))?;
    for leaf in leaves {
        run(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {leaf}.key -out {leaf}.csr -subj /CN={leaf}"
        ))?;
        fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n")?;
        run(&format!(
            "x509 -req -in {leaf}.csr -CA {name}.crt -CAkey {name}.key -CAcreateserial -days 30 -extfile ext -out {leaf}.crt"
        ))?;
    }
    Ok(())
}

#[test]
fn certificates_are_checked_and_shown() -> Result<()> {
    let root = programs::folder()?;
    small_repository(&root.path().join("r"))?;
    let keys = programs::folder()?;
    authority(keys.path(), "ca", &["server", "client"])?;
    authority(keys.path(), "stranger", &["other"])?;
    let at = keys.path().display();
    let plain = Nginx::start(
        root.path(),
        &format!("ssl_certificate {at}/server.crt;\nssl_certificate_key {at}/server.key;"),
    )?;
    let strict = Nginx::start(
        root.path(),
        &format!(
            "ssl_certificate {at}/server.crt;\nssl_certificate_key {at}/server.key;\nssl_client_certificate {at}/ca.crt;\nssl_verify_client on;"
        ),
    )?;
    let update_vm = UpdateVm::new()?;
    let search = |url: &str, more: &str, block: &str| {
        let repos = format!("{}{more}metadata_expire=0\n{block}", repo("r", &format!("{url}/r")));
        update_vm.search("qubes-template-big", &repos)
    };
    let good = |answer: super::Answer| assert_eq!((answer.names().len(), answer.err.as_str()), (1, ""));
    let bad = |answer: super::Answer, why: &str| {
        assert_eq!(answer.rc, 1);
        assert!(answer.err.contains(why), "{}", answer.err);
    };
    good(search(&plain.url, &format!("sslcacert={at}/ca.crt\n"), "")?);
    good(search(&plain.url, "sslverify=0\n", "")?);
    bad(search(&plain.url, "", "")?, "certificate");
    bad(search(&plain.url, &format!("sslcacert={at}/stranger.crt\n"), "")?, "certificate");
    bad(search(&plain.url, &format!("sslcacert={at}/none\n"), "")?, "reading sslcacert");
    // The name in the certificate is another one.
    bad(
        search(&plain.url.replace("localhost", "127.0.0.1"), &format!("sslcacert={at}/ca.crt\n"), "")?,
        "certificate",
    );

    // The system's own roots are those that SSL_CERT_FILE names.
    let mut known = UpdateVm::new()?;
    known.variables.push(("SSL_CERT_FILE".into(), format!("{at}/ca.crt")));
    good(known.search("qubes-template-big", &repo("r", &format!("{}/r", plain.url)))?);

    // A client certificate comes along in the request's key block.
    let directory = "/etc/qubes/repo-templates/keys";
    let encoded = |name: &str| -> Result<String> {
        let bytes = fs::read(keys.path().join(name))?;
        Ok(format!("#{directory}/{name}\n#{}\n", base64::engine::general_purpose::STANDARD.encode(bytes)))
    };
    let block = format!(
        "\n###!Q!BEGIN-QUBES-WRAPPER!Q!###\n{}{}###!Q!END-QUBES-WRAPPER!Q!###",
        encoded("client.crt")?,
        encoded("client.key")?
    );
    let client = format!(
        "sslcacert={at}/ca.crt\nsslclientcert={directory}/client.crt\nsslclientkey=file://{directory}/client.key\n"
    );
    good(search(&strict.url, &client, &block)?);
    bad(search(&strict.url, &format!("sslcacert={at}/ca.crt\n"), "")?, "HTTP status 400");
    bad(search(&strict.url, &client, "")?, "reading sslclientcert");
    bad(
        search(
            &strict.url,
            &format!("sslcacert={at}/ca.crt\nsslclientcert={at}/other.crt\nsslclientkey={at}/other.key\n"),
            "",
        )?,
        "HTTP status 400",
    );
    Ok(())
}
