//! Through which proxy a file is fetched: the repository's `proxy`, else the variables that curl knows.
//!
//! An HTTP proxy is always asked to connect (`CONNECT`), for `http://` addresses too; SOCKS proxies are known as well.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::repo::file::Repo;

/// The settings for a process or a repository.
#[derive(Clone, Debug, Default)]
pub struct ProxyChoice {
    variables: BTreeMap<String, String>,
    fixed: Option<String>,
}

impl ProxyChoice {
    /// Takes `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` out of an environment; the last three in capitals
    /// too. (`HTTP_PROXY` is ignored, as by curl: a caller could set it through a header where a web server runs us.)
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        const KNOWN: [&str; 7] =
            ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];
        let variables = variables
            .into_iter()
            .filter(|(name, value)| KNOWN.contains(&name.as_str()) && !value.is_empty())
            .collect();
        Self { variables, fixed: None }
    }

    /// What holds for `repo`: its own `proxy`, which may be none, comes first.
    #[must_use]
    pub fn for_repo(&self, repo: &Repo) -> Self {
        let Some(proxy) = &repo.proxy else { return self.clone() };
        let mut fixed = proxy.clone();
        if let (Some((scheme, host)), Some(user)) = (proxy.split_once("://"), repo.option("proxy_username")) {
            fixed = format!("{scheme}://{user}:{}@{host}", repo.option("proxy_password").unwrap_or(""));
        }
        Self { variables: BTreeMap::new(), fixed: Some(fixed) }
    }

    /// The proxy for `url`.
    ///
    /// # Errors
    /// Its address cannot be read.
    pub fn for_url(&self, url: &str) -> Result<Option<ureq::Proxy>> {
        match self.address_for(url) {
            Some(proxy) if !proxy.is_empty() => {
                ureq::Proxy::new(proxy).context("reading the address of the proxy").map(Some)
            }
            _ => Ok(None),
        }
    }

    fn address_for(&self, url: &str) -> Option<&str> {
        if let Some(fixed) = &self.fixed {
            return Some(fixed);
        }
        let get =
            |names: &[&str]| names.iter().find_map(|name| self.variables.get(*name)).map(String::as_str);
        if get(&["no_proxy", "NO_PROXY"]).is_some_and(|list| bypasses(list, host(url))) {
            return None;
        }
        let own = if url.starts_with("https:") {
            get(&["https_proxy", "HTTPS_PROXY"])
        } else {
            get(&["http_proxy"])
        };
        own.or_else(|| get(&["all_proxy", "ALL_PROXY"]))
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let authority = authority.rsplit('@').next().unwrap_or("");
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    }
}

fn bypasses(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.trim_start_matches('.').to_ascii_lowercase();
        entry == "*" || host == entry || host.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file;

    fn choice(pairs: &[(&str, &str)]) -> ProxyChoice {
        ProxyChoice::from_variables(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn variables_as_curl_reads_them() {
        let all = choice(&[
            ("http_proxy", "http://h:1"),
            ("HTTPS_PROXY", "http://s:2"),
            ("no_proxy", "local, .corp,10.0.0.1"),
        ]);
        assert_eq!(all.address_for("http://x/"), Some("http://h:1"));
        assert_eq!(all.address_for("https://u:p@x:8/"), Some("http://s:2"));
        for direct in ["http://local/", "https://a.b.corp:8/x", "http://10.0.0.1", "http://LOCAL:80/"] {
            assert_eq!(all.address_for(direct), None, "{direct}");
        }
        assert_eq!(all.address_for("http://xlocal/"), Some("http://h:1"));
        assert_eq!(choice(&[("HTTP_PROXY", "http://evil:1")]).address_for("http://x/"), None);
        assert_eq!(
            choice(&[("ALL_PROXY", "socks5://t:9050")]).address_for("http://x/"),
            Some("socks5://t:9050")
        );
        assert_eq!(choice(&[("all_proxy", "http://a:1"), ("no_proxy", "*")]).address_for("https://x/"), None);
        assert_eq!(
            choice(&[("all_proxy", "http://a:1"), ("no_proxy", "::1")]).address_for("https://[::1]:8/"),
            None
        );
    }

    #[test]
    fn the_repository_comes_first() {
        let env = choice(&[("all_proxy", "http://env:1")]);
        let of = |text: &str| env.for_repo(&file::parse(text).repos[0]);
        assert_eq!(of("[a]\n").address_for("http://x/"), Some("http://env:1"));
        assert_eq!(of("[a]\nproxy=http://own:2\n").address_for("http://x/"), Some("http://own:2"));
        assert!(of("[a]\nproxy=_none_\n").for_url("http://x/").unwrap().is_none());
        let named = of("[a]\nproxy=http://own:2\nproxy_username=u\nproxy_password=p\n")
            .for_url("http://x/")
            .unwrap()
            .unwrap();
        assert_eq!((named.username(), named.password()), (Some("u"), Some("p")));
        assert!(of("[a]\nproxy=ht tp://\n").for_url("http://x/").is_err());
    }
}
