//! Sends a request to the region that serves its client's country, to the backend with the fewest requests in flight there.
//!
//! The country comes in a header that a content delivery network adds (Cloudflare's `cf-ipcountry`, CloudFront's
//! `cloudfront-viewer-country`); a table says which region serves it. Countries that nobody lists, and requests without the
//! header, go to the region `default`. When a region has no healthy backend, all serve: late is better than not at all.
//! Clients can write headers too: trust this one only behind the network that sets it.
//!
//! Cost: one string of the request and a delegated choice. Settings: `header`, default `cf-ipcountry`; `regions`, a table of
//! lists of countries (ISO 3166, as the header writes them); `default`, a region. Backends have the label `region`.
//! Sources: geoblock issue 52, mozilla/addons issue 8510 (leave the lookup to the network, and let the header be set).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    header: String,
    regions: BTreeMap<String, Vec<String>>,
    default: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "cf-ipcountry".into(),
            regions: BTreeMap::new(),
            default: String::new(),
        }
    }
}

#[derive(Default)]
struct GeoByHeader {
    config: Config,
    /// Of each country, in capitals.
    regions: BTreeMap<String, String>,
}

impl Policy for GeoByHeader {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        for (region, countries) in &self.config.regions {
            for country in countries {
                let other = self.regions.insert(country.to_ascii_uppercase(), region.clone());
                if let Some(other) = other {
                    return Err(format!(
                        "`regions`: both `{other}` and `{region}` serve {country}"
                    ));
                }
            }
        }
        if self.config.default.is_empty() {
            return Err("`default` is missing: the region of all other countries".into());
        }
        Ok(())
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let country = request
            .header(&self.config.header)
            .map(|country| country.to_ascii_uppercase());
        let region = country
            .and_then(|country| self.regions.get(&country))
            .unwrap_or(&self.config.default);
        let serves = |backend: Backend<'_>| backend.label("region") == Some(region);
        let nearest = pool.delegate_to(Algorithm::LeastConnections, serves);
        nearest
            .or_else(|| pool.delegate_to(Algorithm::LeastConnections, |_| true))
            .into()
    }
}

policy!(GeoByHeader);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    const SETTINGS: &str = r#"{"regions": {"eu": ["DE", "fr"], "us": ["US", "CA"]}, "default": "us"}"#;

    fn four() -> PoolBuilder {
        ["eu", "us"]
            .iter()
            .fold(pool(["eu1", "eu2", "us1"]), |pool, region| {
                pool.label(&format!("{region}1"), "region", region)
            })
            .label("eu2", "region", "eu")
    }

    fn ask(trial: &mut Trial, country: Option<&str>) -> Option<String> {
        with_host(|host| {
            host.headers = country
                .map(|name| ("CF-IPCountry".into(), name.into()))
                .into_iter()
                .collect();
        });
        trial.pick().map(str::to_owned)
    }

    #[test]
    fn a_country_is_served_by_its_region() {
        let mut trial = Trial::configured(native(), SETTINGS, four());
        with_host(|host| host.active = vec![2, 1, 0]);
        for (country, backend) in [("DE", "eu2"), ("de", "eu2"), ("FR", "eu2"), ("CA", "us1")] {
            assert_eq!(
                ask(&mut trial, Some(country)).as_deref(),
                Some(backend),
                "{country}"
            );
        }
    }

    #[test]
    fn everybody_else_goes_to_the_default() {
        let mut trial = Trial::configured(native(), SETTINGS, four());
        for country in [None, Some("JP"), Some(""), Some("T1")] {
            assert_eq!(ask(&mut trial, country).as_deref(), Some("us1"), "{country:?}");
        }
    }

    #[test]
    fn a_dead_region_is_served_by_the_others() {
        let mut trial = Trial::configured(native(), SETTINGS, four().down("us1"));
        assert!(ask(&mut trial, Some("US")).is_some());
    }

    #[test]
    fn a_country_has_one_region() {
        let twice = r#"{"regions": {"eu": ["DE"], "us": ["de"]}, "default": "us"}"#;
        assert!(
            native()
                .configure(twice)
                .unwrap_err()
                .contains("both `eu` and `us` serve de")
        );
        assert!(native().configure("{}").unwrap_err().contains("`default`"));
    }
}
