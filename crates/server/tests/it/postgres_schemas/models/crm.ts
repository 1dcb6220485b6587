// A customer database, in the style of Drizzle. With TENANTS=1 its tables can be shared: every key begins with the
// tenant's id. With VERSION=2 it has the tables of a later release too. Written for these tests.
import { sql } from 'drizzle-orm';
import {
  bigint, bigserial, bit, boolean, char, check, cidr, date, doublePrecision, foreignKey, index, inet, integer,
  interval, json, jsonb, line, macaddr, macaddr8, numeric, pgEnum, pgTable, pgView, point, primaryKey,
  real, serial, smallint, text, time, timestamp, unique, uuid, varchar,
} from 'drizzle-orm/pg-core';

const shared = process.env.TENANTS === '1';
const later = process.env.VERSION === '2';
const tenant = shared ? { tenantId: text('tenant_id').notNull() } : {};
const t = (table: any) => (shared ? [table.tenantId] : []);
const ref = (table: any, columns: any[], foreign: any, keys: any[]) =>
  foreignKey({ columns: [...t(table), ...columns] as any, foreignColumns: [...t(foreign), ...keys] as any });

export const stage = pgEnum('deal stage', ['new', 'won', 'lost', "it's, \"complicated\""]);

export const accounts = pgTable('accounts', {
  ...tenant,
  id: uuid('id').defaultRandom().notNull(),
  parentId: uuid('parent_id'),
  name: varchar('name', { length: 200 }).notNull(),
  domains: text('domains').array().notNull().default(sql`'{}'::text[]`),
  matrix: integer('matrix').array().array(),
  revenue: numeric('revenue', { precision: 20, scale: 4 }),
  score: real('score'),
  weight: doublePrecision('weight'),
  active: boolean('active').default(true),
  address: inet('address'),
  network: cidr('network'),
  device: macaddr('device'),
  longDevice: macaddr8('long_device'),
  place: point('place'),
  border: line('border'),
  flags: bit('flags', { dimensions: 3 }),
  opens: time('opens'),
  founded: date('founded'),
  cycle: interval('cycle'),
  extra: jsonb('extra').$type<object>().default({ a: ['x'] }),
  raw: json('raw'),
  country: char('country', { length: 2 }),
  createdAt: timestamp('created_at', { withTimezone: true }).defaultNow().notNull(),
}, (table) => [
  primaryKey({ columns: [...t(table), table.id] as any }),
  ref(table, [table.parentId], table, [table.id]),
  unique('accounts_name_unique').on(...([...t(table), table.name] as [any])).nullsNotDistinct(),
  index('accounts_extra').using('gin', table.extra),
  index('accounts_lower_name').on(sql`lower(${table.name})`).where(sql`${table.active}`),
]);

export const contacts = pgTable('contacts', {
  ...tenant,
  id: bigserial('id', { mode: 'bigint' }).notNull(),
  accountId: uuid('account_id').notNull(),
  email: text('email'),
  age: smallint('age'),
  label: text('label').generatedAlwaysAs(sql`'<' || email || '>'`),
}, (table) => [
  primaryKey({ columns: [...t(table), table.id] as any }),
  ref(table, [table.accountId], accounts, [accounts.id]).onDelete('cascade'),
  check('contacts_age', sql`${table.age} IS NULL OR ${table.age} <> 200`),
]);

export const deals = pgTable('deals', {
  ...tenant,
  id: integer('id').generatedAlwaysAsIdentity().notNull(),
  contactId: bigint('contact_id', { mode: 'number' }),
  stage: stage('stage').default('new').notNull(),
  stages: stage('stages').array(),
  amount: numeric('amount'),
  closesAt: timestamp('closes_at'),
}, (table) => [
  primaryKey({ columns: [...t(table), table.id] as any }),
  ref(table, [table.contactId], contacts, [contacts.id]),
]);

export const notes = pgTable('notes', {
  ...tenant,
  id: bigint('id', { mode: 'number' }).generatedByDefaultAsIdentity({ startWith: 1000, increment: 5 }).notNull(),
  dealId: integer('deal_id').notNull(),
  body: text('body').notNull().default(''),
}, (table) => [
  primaryKey({ columns: [...t(table), table.id] as any }),
  ref(table, [table.dealId], deals, [deals.id]).onDelete('cascade').onUpdate('cascade'),
]);

// Drizzle exports views without `security_invoker` unless it is asked for.
export const openDeals = pgView('open_deals').with({ securityInvoker: true }).as((query) =>
  query.select({ id: deals.id, amount: deals.amount }).from(deals).where(sql`${deals.stage} = 'new'`));

export const tags = later ? pgTable('tags', {
  ...tenant,
  id: serial('id').notNull(),
  name: text('name').notNull(),
  noteId: bigint('note_id', { mode: 'number' }),
}, (table) => [
  primaryKey({ columns: [...t(table), table.id] as any }),
  ref(table, [table.noteId], notes, [notes.id]),
]) : undefined;
