//! Hides the secrets of a URL before a log, an error or `/config` shows it.

const MASK: &str = "***";
/// Parameters of database and Redis URLs that hold no secret. Everything else after `?` may be one.
const PLAIN_PARAMETERS: [&str; 14] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "db",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "protocol",
    "sslmode",
    "sslrootcert",
    "user",
];

/// The URL with `***` in place of its password and of each query value that may be a secret. Text without `://` comes
/// back unchanged.
pub fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, fragment) = match rest.rsplit_once('#') {
        Some((rest, fragment)) if !fragment.contains('@') => (rest, format!("#{}", mask_fragment(fragment))),
        _ => (rest, String::new()),
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{}", mask_query(query))),
        None => (rest, String::new()),
    };
    format!("{scheme}://{}{query}{fragment}", mask_login(place))
}

/// Redis uses the fragment `#insecure`.
fn mask_fragment(fragment: &str) -> &str {
    if fragment == "insecure" { fragment } else { MASK }
}

fn mask_login(place: &str) -> String {
    match place.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => place.to_owned(),
        },
        // A password with an unescaped `?` ends up here, before what looks like a query.
        None => match place.split_once(':') {
            Some((user, rest)) if !is_port(rest) => format!("{user}:{MASK}"),
            _ => place.to_owned(),
        },
    }
}

/// Whether `rest` is what follows the colon of `host:port/path`, or an IPv6 address in brackets.
fn is_port(rest: &str) -> bool {
    let port = rest.split('/').next().unwrap_or_default();
    port.bytes().all(|byte| byte.is_ascii_digit()) || port.contains(']')
}

fn mask_query(query: &str) -> String {
    let masked: Vec<String> = query.split('&').map(mask_parameter).collect();
    masked.join("&")
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((key, _)) if PLAIN_PARAMETERS.contains(&key) => parameter.to_owned(),
        Some((key, _)) => format!("{key}={MASK}"),
        None => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask_url;

    #[test]
    fn url_without_secret_is_unchanged() {
        for url in [
            "sqlite:var/login.db",
            "postgres://host/db",
            "postgres://me@host:5432/db?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "redis://127.0.0.1:6379/0",
            "rediss://[::1]:6379#insecure",
        ] {
            assert_eq!(mask_url(url), url);
        }
    }

    #[test]
    fn password_is_masked_in_every_place_of_a_url() {
        for url in [
            "postgres://me:hunter2@host/db",
            "postgres://me:p@hunter2:word@host/db",
            "postgres://me:hunter2?rest@host/db",
            "postgres://me:hunter2/rest@host/db",
            "redis://:hunter2@host:6379",
            "postgres://host/db?password=hunter2",
            "postgres://host:5432/db?user=me&password=a@hunter2",
            "postgres://host/db?pass%77ord=hunter2&sslmode=require",
            "postgres://host/db?sslpassword=hunter2",
            "postgres://host/db?hunter2",
            "redis://host#hunter2",
        ] {
            assert!(!mask_url(url).contains("hunter2"), "{}", mask_url(url));
        }
        let masked = mask_url("postgres://host/db?user=me&password=a&sslmode=require");
        assert_eq!(masked, "postgres://host/db?user=me&password=***&sslmode=require");
    }
}
