//! Register layouts: the points in their order, after the SunSpec Alliance's model definitions (Apache-2.0,
//! github.com/sunspec/models). Type letters: `u`/`i` 16 bit, `U` 32 bit, `e` enum16, `b`/`B` bitfield16/32, `a` acc32,
//! `l` acc64, `f` scale factor, `p` pad, `sN` text of N registers; `*` can be written.

use super::registers::Model;

/// Model 1: identity.
pub(super) const COMMON: Model = Model {
    id: 1,
    points: "\
        Mn:s16 Md:s16 Opt:s8 Vr:s8 SN:s16 DA:u* Pad:p",
};

/// Model 103: three-phase inverter, integers with scale factors.
pub(super) const INVERTER: Model = Model {
    id: 103,
    points: "\
        A:u AphA:u AphB:u AphC:u A_SF:f PPVphAB:u PPVphBC:u PPVphCA:u PhVphA:u PhVphB:u PhVphC:u V_SF:f W:i W_SF:f Hz:u \
        Hz_SF:f VA:i VA_SF:f VAr:i VAr_SF:f PF:i PF_SF:f WH:a WH_SF:f DCA:u DCA_SF:f DCV:u DCV_SF:f DCW:i DCW_SF:f \
        TmpCab:i TmpSnk:i TmpTrns:i TmpOt:i Tmp_SF:f St:e StVnd:e Evt1:B Evt2:B EvtVnd1:B EvtVnd2:B EvtVnd3:B EvtVnd4:B",
};

/// Model 120: nameplate.
pub(super) const NAMEPLATE: Model = Model {
    id: 120,
    points: "\
        DERTyp:e WRtg:u WRtg_SF:f VARtg:u VARtg_SF:f VArRtgQ1:i VArRtgQ2:i VArRtgQ3:i VArRtgQ4:i VArRtg_SF:f ARtg:u \
        ARtg_SF:f PFRtgQ1:i PFRtgQ2:i PFRtgQ3:i PFRtgQ4:i PFRtg_SF:f WHRtg:u WHRtg_SF:f AhrRtg:u AhrRtg_SF:f MaxChaRte:u \
        MaxChaRte_SF:f MaxDisChaRte:u MaxDisChaRte_SF:f Pad:p",
};

/// Model 121: basic settings.
pub(super) const SETTINGS: Model = Model {
    id: 121,
    points: "\
        WMax:u* VRef:u* VRefOfs:i* VMax:u* VMin:u* VAMax:u* VArMaxQ1:i* VArMaxQ2:i* VArMaxQ3:i* VArMaxQ4:i* WGra:u* \
        PFMinQ1:i* PFMinQ2:i* PFMinQ3:i* PFMinQ4:i* VArAct:e* ClcTotVA:e* MaxRmpRte:u* ECPNomHz:u* ConnPh:e* WMax_SF:f \
        VRef_SF:f VRefOfs_SF:f VMinMax_SF:f VAMax_SF:f VArMax_SF:f WGra_SF:f PFMin_SF:f MaxRmpRte_SF:f ECPNomHz_SF:f",
};

/// Model 122: measurements and status.
pub(super) const STATUS: Model = Model {
    id: 122,
    points: "\
        PVConn:b StorConn:b ECPConn:b ActWh:l ActVAh:l ActVArhQ1:l ActVArhQ2:l ActVArhQ3:l ActVArhQ4:l VArAval:i \
        VArAval_SF:f WAval:u WAval_SF:f StSetLimMsk:B StActCtl:B TmSrc:s4 Tms:U RtSt:b Ris:u Ris_SF:f",
};

/// Model 123: immediate controls.
pub(super) const CONTROLS: Model = Model {
    id: 123,
    points: "\
        Conn_WinTms:u* Conn_RvrtTms:u* Conn:e* WMaxLimPct:u* WMaxLimPct_WinTms:u* WMaxLimPct_RvrtTms:u* \
        WMaxLimPct_RmpTms:u* WMaxLim_Ena:e* OutPFSet:i* OutPFSet_WinTms:u* OutPFSet_RvrtTms:u* OutPFSet_RmpTms:u* \
        OutPFSet_Ena:e* VArWMaxPct:i* VArMaxPct:i* VArAvalPct:i* VArPct_WinTms:u* VArPct_RvrtTms:u* VArPct_RmpTms:u* \
        VArPct_Mod:e* VArPct_Ena:e* WMaxLimPct_SF:f OutPFSet_SF:f VArPct_SF:f",
};

/// Model 124: storage controls.
pub(super) const STORAGE: Model = Model {
    id: 124,
    points: "\
        WChaMax:u* WChaGra:u* WDisChaGra:u* StorCtl_Mod:b* VAChaMax:u* MinRsvPct:u* ChaState:u StorAval:u InBatV:u \
        ChaSt:e OutWRte:i* InWRte:i* InOutWRte_WinTms:u* InOutWRte_RvrtTms:u* InOutWRte_RmpTms:u* ChaGriSet:e* \
        WChaMax_SF:f WChaDisChaGra_SF:f VAChaMax_SF:f MinRsvPct_SF:f ChaState_SF:f StorAval_SF:f InBatV_SF:f \
        InOutWRte_SF:f",
};

/// Model 203: wye-connected three-phase meter.
pub(super) const METER: Model = Model {
    id: 203,
    points: "\
        A:i AphA:i AphB:i AphC:i A_SF:f PhV:i PhVphA:i PhVphB:i PhVphC:i PPV:i PhVphAB:i PhVphBC:i PhVphCA:i V_SF:f Hz:i \
        Hz_SF:f W:i WphA:i WphB:i WphC:i W_SF:f VA:i VAphA:i VAphB:i VAphC:i VA_SF:f VAR:i VARphA:i VARphB:i VARphC:i \
        VAR_SF:f PF:i PFphA:i PFphB:i PFphC:i PF_SF:f TotWhExp:a TotWhExpPhA:a TotWhExpPhB:a TotWhExpPhC:a TotWhImp:a \
        TotWhImpPhA:a TotWhImpPhB:a TotWhImpPhC:a TotWh_SF:f TotVAhExp:a TotVAhExpPhA:a TotVAhExpPhB:a TotVAhExpPhC:a \
        TotVAhImp:a TotVAhImpPhA:a TotVAhImpPhB:a TotVAhImpPhC:a TotVAh_SF:f TotVArhImpQ1:a TotVArhImpQ1PhA:a \
        TotVArhImpQ1PhB:a TotVArhImpQ1PhC:a TotVArhImpQ2:a TotVArhImpQ2PhA:a TotVArhImpQ2PhB:a TotVArhImpQ2PhC:a \
        TotVArhExpQ3:a TotVArhExpQ3PhA:a TotVArhExpQ3PhB:a TotVArhExpQ3PhC:a TotVArhExpQ4:a TotVArhExpQ4PhA:a \
        TotVArhExpQ4PhB:a TotVArhExpQ4PhC:a TotVArh_SF:f Evt:B",
};

/// Model 802: battery base.
pub(super) const BATTERY: Model = Model {
    id: 802,
    points: "\
        AHRtg:u WHRtg:u WChaRteMax:u WDisChaRteMax:u DisChaRte:u SoCMax:u SoCMin:u SocRsvMax:u* SoCRsvMin:u* SoC:u DoD:u \
        SoH:u NCyc:U ChaSt:e LocRemCtl:e Hb:u CtrlHb:u* AlmRst:u* Typ:e State:e StateVnd:e WarrDt:U Evt1:B Evt2:B \
        EvtVnd1:B EvtVnd2:B V:u VMax:u VMin:u CellVMax:u CellVMaxStr:u CellVMaxMod:u CellVMin:u CellVMinStr:u \
        CellVMinMod:u CellVAvg:u A:i AChaMax:u ADisChaMax:u W:i ReqInvState:e ReqW:i SetOp:e* SetInvState:e* AHRtg_SF:f \
        WHRtg_SF:f WChaDisChaMax_SF:f DisChaRte_SF:f SoC_SF:f DoD_SF:f SoH_SF:f V_SF:f CellV_SF:f A_SF:f AMax_SF:f \
        W_SF:f",
};
