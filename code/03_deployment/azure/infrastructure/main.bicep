// A workspace of Azure Machine Learning, what it needs, and a login for the workflows of one repository on GitHub:
//     az deployment sub create --name isicvision --location westeurope \
//         --template-file code/03_deployment/azure/infrastructure/main.bicep \
//         --parameters repository=OWNER@ID/NAME@ID email=you@example.org budget=50
// docs/azure_infrastructure.md explains it, and what OWNER@ID/NAME@ID is. It was neither compiled nor deployed, see there.
targetScope = 'subscription'

@description('The repository as it stands in the subject of GitHub\'s tokens, upper and lower case alike: OWNER/NAME, or OWNER@ID/NAME@ID if it was made, renamed or moved since July 15, 2026.')
param repository string

@description('Where the budget alarm is sent.')
param email string

@description('Monthly budget of the resource group, in the currency of the subscription. It warns and stops nothing.')
@minValue(1)
param budget int

@description('First day of the budget\'s first month. Where the deployment is repeated in a later month, give the first one.')
param budgetStart string = '${utcNow('yyyy-MM')}-01T00:00:00Z'

@description('The region.')
param location string = deployment().location

@description('Part of the names.')
@minLength(3)
@maxLength(20)
param name string = 'isicvision'

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${name}'
  location: location
}

module resources 'resources.bicep' = {
  name: name
  scope: group
  params: {
    budget: budget
    budgetStart: budgetStart
    email: email
    location: location
    name: name
    repository: repository
  }
}

// the variables of the repository that the workflows read; none is a secret
output AZURE_CLIENT_ID string = resources.outputs.clientId
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_SUBSCRIPTION_ID string = subscription().subscriptionId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_ML_WORKSPACE string = resources.outputs.workspace
