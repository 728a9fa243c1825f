// What is in the resource group that main.bicep makes.
param budget int
param budgetStart string
param email string
param location string
param name string
param repository string

var unique = uniqueString(resourceGroup().id) // 13 letters and digits: some names must be free in all of Azure

resource storage 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: 'st${unique}'
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: { // the workspace's datastores log in by the account's key, so it stays allowed
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: 'kv-${unique}'
  location: location
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enablePurgeProtection: true // for good: its name is free again only after the days below
    softDeleteRetentionInDays: 7
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-04-01' = {
  name: 'cr${unique}'
  location: location
  sku: {
    name: 'Basic'
  }
  properties: {
    adminUserEnabled: false // sdk_v1.py on a container instance needs it; nothing else does
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'log-${name}'
  location: location
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: 30
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-${name}'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
  }
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2024-10-01' = {
  name: 'mlw-${name}'
  location: location
  identity: {
    type: 'SystemAssigned' // Azure gives it its roles in the four above
  }
  properties: {
    friendlyName: name
    storageAccount: storage.id
    keyVault: vault.id
    containerRegistry: registry.id
    applicationInsights: insights.id
  }
}

resource github 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-${name}-github'
  location: location
}

// train.yml runs on the branch main, deploy.yml in the environment azure, which asks for approval
var subjects = [
  {
    name: 'main'
    subject: 'repo:${repository}:ref:refs/heads/main'
  }
  {
    name: 'azure'
    subject: 'repo:${repository}:environment:azure'
  }
]

@batchSize(1) // Azure takes one after the other
resource logins 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = [
  for each in subjects: {
    parent: github
    name: each.name
    properties: {
      issuer: 'https://token.actions.githubusercontent.com'
      subject: each.subject
      audiences: ['api://AzureADTokenExchange']
    }
  }
]

// AzureML Data Scientist: jobs, models, endpoints; neither compute nor roles, and nothing outside this resource group
var dataScientist = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'f6c7c914-8db3-469d-8ca1-694a8f32e121'
)

resource role 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, github.id, dataScientist)
  properties: {
    roleDefinitionId: dataScientist
    principalId: github.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

resource alarm 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: 'budget-${name}'
  properties: {
    category: 'Cost'
    amount: budget
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: budgetStart
    }
    notifications: {
      spent: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 80 // percent
        thresholdType: 'Actual'
        contactEmails: [email]
      }
      expected: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: [email]
      }
    }
  }
}

output clientId string = github.properties.clientId
output workspace string = workspace.name
