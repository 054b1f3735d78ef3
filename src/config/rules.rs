//! What the configuration says about single categories: `category:value,category:value`.

use serde_json::Value as Json;

use super::bad;
use crate::error::Error;
use crate::record::{KeepClass, is_category_name};

/// At most this many records per second and category.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RateLimit {
    pub(crate) per_second: f64,
    /// Records that may come at once after a rest.
    pub(crate) burst: u32,
}

/// Rules per category, in the order they were given; of two for one category the later counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CategoryRules {
    pub(crate) keep: Vec<(String, KeepClass)>,
    /// Part of the records that are kept, in (0, 1].
    pub(crate) sample_rates: Vec<(String, f64)>,
    pub(crate) rate_limits: Vec<(String, RateLimit)>,
    pub(crate) on_change: Vec<String>,
}

/// Categories that no rule may thin out.
const PROTECTED: [&str; 3] = ["session", "stress", "errors"];

/// Each fixed rate takes one id of the rate table, of which there are 240.
const SAMPLE_RATES_MAX: usize = 240;

impl CategoryRules {
    /// The class that the configuration gives to all records of a category.
    pub(crate) fn keep(&self, category: &str) -> Option<KeepClass> {
        last(&self.keep, category)
    }

    /// Part of the records of a category that is kept.
    pub(crate) fn sample_rate(&self, category: &str) -> Option<f64> {
        last(&self.sample_rates, category)
    }

    /// Limit of a category.
    pub(crate) fn rate_limit(&self, category: &str) -> Option<RateLimit> {
        last(&self.rate_limits, category)
    }

    /// Names that have any rule, without repeats.
    pub(crate) fn categories(&self) -> Vec<&str> {
        let keep = self.keep.iter().map(|rule| rule.0.as_str());
        let rates = self.sample_rates.iter().map(|rule| rule.0.as_str());
        let limits = self.rate_limits.iter().map(|rule| rule.0.as_str());
        let on_change = self.on_change.iter().map(String::as_str);
        let mut names: Vec<_> = keep.chain(rates).chain(limits).chain(on_change).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        for name in self.categories() {
            if !is_category_name(name) {
                let remedy = "a category has 1 to 64 characters of a-z, 0-9 and _";
                return Err(bad("category", name, remedy));
            }
        }
        let thinned = self
            .sample_rates
            .iter()
            .map(|rule| ("sample_rates", &rule.0));
        let limited = self.rate_limits.iter().map(|rule| ("rate_limits", &rule.0));
        let on_change = self.on_change.iter().map(|name| ("on_change", name));
        let lowered = self.keep.iter().filter(|rule| rule.1 == KeepClass::Sampled);
        let lowered = lowered.map(|rule| ("keep", &rule.0));
        for (setting, name) in thinned.chain(limited).chain(on_change).chain(lowered) {
            if PROTECTED.contains(&name.as_str()) {
                let remedy = "records of session, stress and errors are always kept";
                return Err(bad(setting, name, remedy));
            }
        }
        for (name, rate) in &self.sample_rates {
            // A rate below this would stand for more records than a session can have.
            if !(1e-9..=1.0).contains(rate) {
                let value = format!("{name}:{rate}");
                return Err(bad("sample_rates", &value, "give more than 0 % to 100 %"));
            }
        }
        if self.sample_rates.len() > SAMPLE_RATES_MAX {
            let value = self.sample_rates.len().to_string();
            return Err(bad("sample_rates", &value, "give at most 240"));
        }
        for (name, limit) in &self.rate_limits {
            if !(1e-3..=1e9).contains(&limit.per_second) || limit.burst == 0 {
                let value = format!("{name}:{}:{}", limit.per_second, limit.burst);
                let remedy = "give 0.001 to 1000000000 records per second and a burst of 1 or more";
                return Err(bad("rate_limits", &value, remedy));
            }
        }
        Ok(())
    }

    /// `requests:always,circuit_breaker:sampled`
    pub(crate) fn parse_keep(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.keep = pairs(name, value)?
            .map(|(category, class)| match class {
                "always" => Ok((category.to_owned(), KeepClass::Always)),
                "sampled" => Ok((category.to_owned(), KeepClass::Sampled)),
                _ => Err(bad(name, value, "give category:always or category:sampled")),
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// `requests:10%,health:0.5%`
    pub(crate) fn parse_sample_rates(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.sample_rates = pairs(name, value)?
            .map(|(category, rate)| {
                let percent = rate
                    .strip_suffix('%')
                    .and_then(|rate| rate.trim().parse().ok());
                let percent: f64 = percent
                    .ok_or_else(|| bad(name, value, "give percentages, such as requests:10%"))?;
                Ok((category.to_owned(), percent / 100.0))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// `requests:1000,health:10:50` (records per second, and burst; one second's worth if left
    /// out)
    pub(crate) fn parse_rate_limits(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wrong = || {
            let remedy = "give category:per_second or category:per_second:burst";
            bad(name, value, remedy)
        };
        self.rate_limits = pairs(name, value)?
            .map(|(category, limit)| {
                let (per_second, burst) = match limit.split_once(':') {
                    Some((per_second, burst)) => (per_second, Some(burst)),
                    None => (limit, None),
                };
                let per_second: f64 = per_second.trim().parse().map_err(|_| wrong())?;
                let burst = match burst {
                    Some(burst) => burst.trim().parse().map_err(|_| wrong())?,
                    None => per_second.ceil().max(1.0) as u32,
                };
                Ok((category.to_owned(), RateLimit { per_second, burst }))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    pub(crate) fn keep_json(&self) -> Json {
        let class = |class| match class {
            KeepClass::Always => "always".into(),
            KeepClass::Sampled => "sampled".into(),
        };
        object(&self.keep, class)
    }

    pub(crate) fn sample_rates_json(&self) -> Json {
        object(&self.sample_rates, Json::from)
    }

    pub(crate) fn rate_limits_json(&self) -> Json {
        let limit = |limit: RateLimit| serde_json::json!([limit.per_second, limit.burst]);
        object(&self.rate_limits, limit)
    }
}

fn object<T: Copy>(rules: &[(String, T)], value: impl Fn(T) -> Json) -> Json {
    let pairs = rules.iter();
    Json::Object(
        pairs
            .map(|(name, rule)| (name.clone(), value(*rule)))
            .collect(),
    )
}

fn last<T: Copy>(rules: &[(String, T)], category: &str) -> Option<T> {
    rules
        .iter()
        .rev()
        .find(|rule| rule.0 == category)
        .map(|rule| rule.1)
}

/// Splits `a:x,b:y`; white space around the parts and empty items do not count.
fn pairs<'a>(
    name: &'a str,
    value: &'a str,
) -> Result<impl Iterator<Item = (&'a str, &'a str)>, Error> {
    let items = || {
        value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
    };
    if items().any(|item| !item.contains(':')) {
        return Err(bad(name, value, "give category:value, separated by commas"));
    }
    Ok(items()
        .filter_map(|item| item.split_once(':'))
        .map(|(category, value)| (category.trim(), value.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_documented() {
        let mut rules = CategoryRules::default();
        rules
            .parse_keep("K", "requests: always, circuit_breaker:sampled,")
            .unwrap();
        rules
            .parse_sample_rates("S", "requests:10%, health:0.5%")
            .unwrap();
        rules
            .parse_rate_limits("L", "requests:1000,health:0.5:20")
            .unwrap();
        assert_eq!(rules.keep("requests"), Some(KeepClass::Always));
        assert_eq!(rules.keep("vpn"), None);
        assert_eq!(rules.sample_rate("health"), Some(0.005));
        let limit = rules.rate_limit("requests").unwrap();
        assert_eq!((limit.per_second, limit.burst), (1000.0, 1000));
        assert_eq!(rules.rate_limit("health").unwrap().burst, 20);
        rules.validate().unwrap();
        assert_eq!(
            rules.categories(),
            ["circuit_breaker", "health", "requests"]
        );
    }

    #[test]
    fn wrong_rules_are_refused_with_a_remedy() {
        let mut rules = CategoryRules::default();
        assert!(rules.parse_keep("K", "requests").is_err());
        assert!(rules.parse_keep("K", "requests:maybe").is_err());
        assert!(rules.parse_sample_rates("S", "requests:0.1").is_err());
        assert!(rules.parse_rate_limits("L", "requests:x").is_err());
        for value in [
            "stress:1%",
            "errors:50%",
            "a/b:1%",
            "x:0%",
            "x:101%",
            "x:NaN%",
        ] {
            let mut rules = CategoryRules::default();
            rules.parse_sample_rates("S", value).unwrap();
            assert!(rules.validate().is_err(), "{value}");
        }
        for value in ["x:0", "x:1:0", "session:5"] {
            let mut rules = CategoryRules::default();
            rules.parse_rate_limits("L", value).unwrap();
            assert!(rules.validate().is_err(), "{value}");
        }
        rules.parse_keep("K", "stress:sampled").unwrap();
        let error = rules.validate().unwrap_err().to_string();
        assert_eq!(
            error,
            "keep=stress: records of session, stress and errors are always kept"
        );
        let rules = CategoryRules {
            on_change: vec!["errors".to_owned()],
            ..CategoryRules::default()
        };
        assert!(rules.validate().is_err());
    }
}
