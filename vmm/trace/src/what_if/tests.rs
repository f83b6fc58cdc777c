use super::*;
use crate::replay::build;

fn asked(changes: &[&str], header: &Header) -> Result<bool, String> {
    let changes: Vec<Change> = changes
        .iter()
        .map(|text| text.parse().map_err(|error: BadChange| error.to_string()))
        .collect::<Result<_, _>>()?;
    let system = build(header).unwrap();
    let question = question(&changes, header, &system).map_err(|error| error.to_string())?;
    Ok(question.strict)
}

fn header() -> Header {
    Header { ram: vec![(0, 1 << 20)], ..Header::nothing() }
}

#[test]
fn what_moves_nothing_can_be_asked() {
    for change in [
        "port0.acs=SV RR",
        "port0.acs=SV,RR,UF",
        "port0.acs=none",
        "port0.acs=standard",
        "port0.acs=+RR,-CR",
        "port0.acs-without-effect=RR",
        "port0.acs-without-effect=none",
        "host-bridge.peer-routing=nowhere",
    ] {
        assert_eq!(asked(&[change], &header()), Ok(false), "{change}");
    }
    assert_eq!(asked(&["port0.acs=+RR", "strict"], &header()), Ok(true));
}

#[test]
fn whatever_else_is_refused_with_the_reason() {
    for (change, reason) in [
        ("port0.acs=", "no ACS control is named"),
        ("port0.acs=XX", "is not an ACS control"),
        ("port0.acs=+RR,-RR", "switched on and off"),
        ("port0.acs=+RR CR", "neither switched on (+) nor off (-)"),
        ("peer0.acs=RR", "peer0 is an endpoint"),
        ("down7.acs=RR", "the trace has no port down7; it has port0, port1"),
        (
            "no-bridge.peer-routing=nowhere",
            "the trace has no host bridge no-bridge; it has host-bridge",
        ),
        ("host-bridge.peer-routing=far", "everywhere, same-bridge or nowhere"),
        ("acs=RR", "Those are PORT.acs=..., "),
        ("peer0.bar2=0x1000", "other numbers or addresses"),
        ("iommu=none", "other numbers or addresses"),
        ("lazy", "other numbers or addresses"),
        ("", "other numbers or addresses"),
    ] {
        let error = asked(&[change], &header()).unwrap_err();
        assert!(error.contains(reason), "{change}: {error}");
    }
    let mut without = header();
    without.system.iommu = IommuKind::None;
    assert!(asked(&["strict"], &without).unwrap_err().contains("no IOMMU that translates"));
}
