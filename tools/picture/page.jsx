// Draws the panels of a dashboard from answers of Prometheus, with Grafana's own
// libraries. What Grafana's server and its data source do between the two, naming the
// series and making tables of them, is done here; every rule that is theirs says so.
import { createRoot } from 'react-dom/client';
import {
  FieldType,
  LoadingState,
  Registry,
  ThresholdsMode,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  displayNameOverrideProcessor,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  identityOverrideProcessor,
  numberOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  transformDataFrame,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import {
  BigValue,
  GlobalStyles,
  PanelChrome,
  ThemeContext,
  TimeSeries,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';

const { theme: mode, width, timeZone, panels } = window.picture;
const theme = createTheme({ colors: { mode } });
const GRID = { columns: 24, cell: 30, gap: 8 };

// A transformer is loaded when it is first wanted: the registry holds what loads it.
standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((one) => ({
    id: one.id,
    name: one.name,
    transformation: async () => one,
  }))
);

// --- what a field's configuration may hold ----------------------------------------

const numeric = (field) => field.type === FieldType.number;
const always = () => true;
const STANDARD = [
  ['displayName', displayNameOverrideProcessor, always],
  ['unit', unitOverrideProcessor, numeric],
  ['min', numberOverrideProcessor, numeric],
  ['max', numberOverrideProcessor, numeric],
  ['decimals', numberOverrideProcessor, numeric],
  ['noValue', stringOverrideProcessor, always],
  ['color', identityOverrideProcessor, always],
  ['mappings', valueMappingsOverrideProcessor, always],
  ['thresholds', thresholdsOverrideProcessor, numeric],
  ['links', identityOverrideProcessor, always],
];
// Of each kind of panel its own fields, and what they are where the dashboard says
// nothing.
const CUSTOM = {
  stat: {},
  table: {
    align: 'auto',
    filterable: false,
    hidden: undefined,
    inspect: false,
    minWidth: undefined,
    width: undefined,
    wrapText: undefined,
    cellOptions: { type: 'auto' },
  },
  timeseries: {
    drawStyle: 'line',
    lineInterpolation: 'linear',
    lineWidth: 1,
    lineStyle: undefined,
    fillOpacity: 0,
    fillBelowTo: undefined,
    gradientMode: 'none',
    barAlignment: 0,
    barWidthFactor: 0.6,
    spanNulls: false,
    insertNulls: false,
    showPoints: 'auto',
    pointSize: 5,
    stacking: { mode: 'none', group: 'A' },
    transform: undefined,
    hideFrom: undefined,
    axisPlacement: 'auto',
    axisLabel: '',
    axisWidth: undefined,
    axisGridShow: true,
    axisBorderShow: false,
    axisCenteredZero: false,
    axisColorMode: 'text',
    axisSoftMin: undefined,
    axisSoftMax: undefined,
    scaleDistribution: { type: 'linear' },
    thresholdsStyle: { mode: 'off' },
  },
};

function registry(type) {
  const item = (id, path, process, shouldApply, isCustom) => ({
    id,
    path,
    name: id,
    process,
    shouldApply,
    isCustom,
    settings: {},
    getItemsCount: () => 0,
  });
  return new Registry(() => [
    ...STANDARD.map(([id, process, applies]) => item(id, id, process, applies, false)),
    ...Object.keys(CUSTOM[type]).map((path) =>
      item(`custom.${path}`, path, identityOverrideProcessor, always, true)
    ),
  ]);
}

/** What the panel's plugin adds to a configuration that leaves it out. */
function withDefaults({ type, fieldConfig }) {
  const color = { mode: type === 'timeseries' ? 'palette-classic' : 'thresholds' };
  const thresholds = {
    mode: ThresholdsMode.Absolute,
    steps: [
      { value: null, color: 'green' },
      { value: 80, color: 'red' },
    ],
  };
  const given = structuredClone(fieldConfig.defaults);
  const custom = { ...structuredClone(CUSTOM[type]), ...given.custom };
  const defaults = { color, thresholds, mappings: [], ...given, custom };
  const steps = [
    defaults.thresholds.steps,
    ...fieldConfig.overrides.flatMap((each) =>
      each.properties.filter(({ id }) => id === 'thresholds').map(({ value }) => value.steps)
    ),
  ];
  // JSON has no -Infinity; Grafana puts it where a first step has null.
  steps.forEach(([first]) => (first.value = -Infinity));
  return { defaults, overrides: fieldConfig.overrides };
}

// --- from answers to frames -------------------------------------------------------

/** The series' name, as Grafana's server makes it of a legend format. */
function nameOf(format, labels, expr) {
  if (!format || format === '__auto') {
    return Object.keys(labels).length ? '' : expr;
  }
  return format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

function seriesFrames({ refId, expr, legendFormat, step, result }) {
  return result.map(({ metric, values, value }) => {
    const { __name__, ...labels } = metric;
    const name = nameOf(legendFormat, labels, expr);
    const points = values ?? [value];
    return {
      refId,
      length: points.length,
      fields: [
        {
          name: 'Time',
          type: FieldType.time,
          config: values ? { interval: step * 1000 } : {},
          values: points.map(([at]) => at * 1000),
        },
        {
          name: 'Value',
          type: FieldType.number,
          labels,
          config: name ? { displayNameFromDS: name } : {},
          values: points.map(([, number]) => Number(number)),
        },
      ],
    };
  });
}

/** One table of a query's series, as Grafana's data source makes it. */
function tableFrame({ refId, result }, alone) {
  if (!result.length) {
    return [];
  }
  const known = result.flatMap(({ metric }) => Object.keys(metric));
  const labels = [...new Set(known)].sort();
  return [
    {
      refId,
      length: result.length,
      fields: [
        {
          name: 'Time',
          type: FieldType.time,
          config: {},
          values: result.map(({ value }) => value[0] * 1000),
        },
        ...labels.map((label) => ({
          name: label,
          type: FieldType.string,
          config: { filterable: true },
          values: result.map(({ metric }) => metric[label] ?? ''),
        })),
        {
          name: alone ? 'Value' : `Value #${refId}`,
          type: FieldType.number,
          config: {},
          values: result.map(({ value }) => Number(value[1])),
        },
      ],
    },
  ];
}

async function framesOf(panel, answers) {
  const alone = panel.targets.length === 1;
  const frames = answers.flatMap((each) =>
    each.format === 'table' ? tableFrame(each, alone) : seriesFrames(each)
  );
  const stream = transformDataFrame(panel.transformations ?? [], frames);
  const series = await new Promise((resolve, reject) =>
    stream.subscribe({ next: resolve, error: reject })
  );
  const found = applyFieldOverrides({
    data: series,
    fieldConfig: withDefaults(panel),
    fieldConfigRegistry: registry(panel.type),
    replaceVariables: (text) => text,
    theme,
    timeZone,
  });
  cacheFieldDisplayNames(found);
  return found;
}

// --- the panels -------------------------------------------------------------------

function Stat({ one, width, height }) {
  const { reduceOptions, orientation, ...look } = one.panel.options;
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig: withDefaults(one.panel),
      reduceOptions,
      replaceVariables: (text) => text,
      theme,
      data: one.data,
      sparkline: false,
      timeZone,
    });
  const renderValue = ({ value, alignmentFactors, count, width, height }) => (
    <BigValue
      value={value.display}
      {...look}
      {...{ alignmentFactors, count, width, height, theme }}
    />
  );
  return (
    <VizRepeater
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      source={one.data}
      renderCounter={0}
      itemSpacing={3}
      autoGrid
      {...{ getValues, renderValue, orientation, width, height }}
    />
  );
}

function Table({ one, width, height }) {
  const { showHeader, cellHeight, sortBy } = one.panel.options;
  return (
    <TableNG
      data={one.data[0]}
      noHeader={!showHeader}
      {...{ width, height, cellHeight, sortBy }}
      initialSortBy={sortBy}
      enableVirtualization={false}
      structureRev={1}
      fieldConfig={one.panel.fieldConfig}
    />
  );
}

function Graph({ one, width, height }) {
  const [from, to] = one.range.map((ms) => dateTime(ms));
  return (
    <TimeSeries
      frames={one.data}
      structureRev={1}
      timeRange={{ from, to, raw: { from, to } }}
      timeZone={timeZone}
      legend={one.panel.options.legend}
      options={one.panel.options}
      {...{ width, height }}
    />
  );
}

const KINDS = { stat: Stat, table: Table, timeseries: Graph };

function place({ x, y, w, h }) {
  const column = (width - GRID.gap * (GRID.columns + 1)) / GRID.columns;
  const across = (n) => n * (column + GRID.gap);
  const down = (n) => n * (GRID.cell + GRID.gap);
  return {
    position: 'absolute',
    left: GRID.gap + across(x),
    top: GRID.gap + down(y),
    width: across(w) - GRID.gap,
    height: down(h) - GRID.gap,
  };
}

function Panel({ one }) {
  const { panel, data } = one;
  const at = place(panel.gridPos);
  if (panel.type === 'row') {
    const style = { ...at, ...theme.typography.h5, lineHeight: `${at.height}px` };
    return (
      <div style={style}>
        {panel.collapsed ? '›' : '⌄'}&ensp;{panel.title}
      </div>
    );
  }
  const Kind = KINDS[panel.type];
  // A number says so itself.
  const empty = data.length === 0 && panel.type !== 'stat';
  const nothing = panel.fieldConfig.defaults.noValue ?? 'No data';
  return (
    <div style={at}>
      <PanelChrome
        title={panel.title}
        description={panel.description}
        width={at.width}
        height={at.height}
        loadingState={LoadingState.Done}
        padding="md"
      >
        {(inner, outer) =>
          empty ? (
            <div style={{ display: 'grid', placeItems: 'center', height: outer }}>{nothing}</div>
          ) : (
            <Kind one={one} width={inner} height={outer} />
          )
        }
      </PanelChrome>
    </div>
  );
}

async function draw() {
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
  const drawn = [];
  for (const each of panels) {
    const data = each.panel.type === 'row' ? [] : await framesOf(each.panel, each.answers);
    drawn.push({ ...each, data });
  }
  document.body.style.background = theme.colors.background.canvas;
  createRoot(document.getElementById('page')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {drawn.map((one, index) => (
        <Panel key={index} one={one} />
      ))}
    </ThemeContext.Provider>
  );
}

function failed(text) {
  fetch('failed', { method: 'POST', body: text });
}

window.onerror = (message, file, line, column, error) => failed(error?.stack ?? message);
draw().catch((error) => failed(error.stack));
